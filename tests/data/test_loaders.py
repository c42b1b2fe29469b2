"""Each loader by itself: what it delivers, whatever the processes, threads and cache, and how it ends."""

from __future__ import annotations

import dataclasses
import re
import shutil
import threading
from typing import Any

import pytest
import torch

from maskmatch.common.batch import Batch
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import Loader, load_dataset
from maskmatch.data.loading.sampling import UNLABELED, samples_of_step
from maskmatch.data.loading.source import Source
from tests.data.loaders import LOADERS, delivered, equal, open_loader, take


@pytest.mark.parametrize("name", LOADERS)
def test_a_batch_is_what_it_promises(folder: DataConfig, name: str) -> None:
    for batch in take(folder, name, 5):
        for images in (batch.images, batch.weak, batch.strong):
            assert images is not None
            assert images.shape == (4, 3, 48, 40)
            assert images.dtype == torch.uint8
            assert images.is_contiguous(memory_format=torch.channels_last)
        assert batch.target.shape == (4, 48, 40)
        assert batch.target.dtype == torch.uint8
        assert set(batch.target.unique().tolist()) <= {0, 1, 2, 3, 255}
        assert batch.valid is not None
        assert batch.valid.dtype == torch.bool
        assert batch.seeds is not None
        assert batch.seeds.dtype == torch.int64
        padding = ~batch.valid[:, None].expand(-1, 3, -1, -1)
        assert not batch.weak[padding].any()  # type: ignore[index]
        assert not batch.strong[padding].any()  # type: ignore[index]


@pytest.mark.parametrize("name", LOADERS)
def test_padding_is_marked(folder: DataConfig, name: str) -> None:
    """Images of half their size do not fill a crop twice as large as the largest of them."""
    config = dataclasses.replace(folder, crop_size=160, scale_range=(0.5, 0.5))
    (batch,) = take(config, name, 1)
    sizes = [(round((40 + 3 * i) / 2), round((70 - 2 * i) / 2)) for i in range(3, 10)]
    samples = samples_of_step(0, global_batch=4, length=7, seed=0, stream=UNLABELED, config=config)
    for valid, sample in zip(batch.valid, samples, strict=True):  # type: ignore[arg-type]
        height, width = sizes[sample.id]
        expected = torch.zeros(160, 160, dtype=torch.bool)
        expected[:height, :width] = True
        assert torch.equal(valid, expected)
    assert (batch.target[:, 40:] == 255).all()
    assert (batch.target[:, :, 40:] == 255).all()


@pytest.mark.parametrize("name", LOADERS)
def test_resuming_equals_continuing(folder: DataConfig, name: str) -> None:
    whole = take(folder, name, 8, seed=5)
    resumed = take(folder, name, 3, seed=5, start_step=5)
    assert all(equal(a, b) for a, b in zip(whole[5:], resumed, strict=True))
    assert not equal(whole[0], take(folder, name, 1, seed=6)[0])


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("global_batch", [6, 4])
def test_processes_together_show_what_one_shows(folder: DataConfig, name: str, global_batch: int) -> None:
    """Also where they do not divide the global batch."""
    parts = [take(folder, name, 3, global_batch=global_batch, rank=rank, world_size=3) for rank in range(3)]
    assert [len(batches[0].images) for batches in parts] == ([2, 2, 2] if global_batch == 6 else [1, 1, 2])
    for whole, *shards in zip(take(folder, name, 3, global_batch=global_batch), *parts, strict=True):
        assert equal(whole, Batch(*(torch.cat(tensors) for tensors in zip(*map(delivered, shards), strict=True))))


def test_every_process_needs_an_image(folder: DataConfig) -> None:
    with pytest.raises(UserError, match="global_batch: expected at least one image for each of 5 processes, got 4"):
        open_loader(folder, "torch", rank=4, world_size=5)


@pytest.mark.parametrize("name", LOADERS)
def test_normalized_output(folder: DataConfig, name: str) -> None:
    normalize = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalize)
    for plain, batch in zip(take(folder, name, 3), take(folder, name, 3, normalize=normalize), strict=True):
        for images, expected in zip(
            (batch.images, batch.weak, batch.strong), (plain.images, plain.weak, plain.strong), strict=True
        ):
            assert images is not None and expected is not None
            assert images.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(images, (expected / 255 - mean) / std)
        assert torch.equal(batch.target, plain.target)
    (batch,) = take(folder, name, 1, normalize=normalize, supervised_only=True)
    assert batch.images.dtype == torch.float32 and batch.weak is None
    with pytest.raises(UserError, match="normalize: expected mean and std of three channels"):
        open_loader(folder, name, normalize=([0.5], [0.0]))


@pytest.mark.parametrize("name", LOADERS)
def test_workers_do_not_change_the_batches(folder: DataConfig, name: str) -> None:
    none, one, three = (take(dataclasses.replace(folder, workers=workers), name, 9) for workers in (0, 1, 3))
    for a, b, c in zip(none, one, three, strict=True):
        assert equal(a, b) and equal(a, c)


def test_no_thread_competes_with_those_of_the_networks(folder: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a core is free, or it is told to."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for threads, workers, expected in ((4, None, 0), (3, None, 1), (4, 2, 2), (3, 0, 0)):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        with open_loader(dataclasses.replace(folder, workers=workers), "torch") as loader:
            next(loader)
            own = [thread for thread in threading.enumerate() if thread.name.startswith("torch-loader")]
            assert bool(own) == bool(expected) and len(own) <= expected


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("normalize", [None, ([0.5] * 3, [0.5] * 3)])
def test_a_batch_that_is_held_stays(folder: DataConfig, name: str, normalize: Any) -> None:
    """Also where only a part of one of its tensors is held."""
    with open_loader(folder, name, normalize=normalize) as loader:
        held, part = next(loader), next(loader).images[1, 2]
        copy, copied_part = Batch(*(tensor.clone() for tensor in delivered(held))), part.clone()
        for _ in range(12):
            next(loader)
        assert equal(held, copy)
        assert torch.equal(part, copied_part)


@pytest.mark.parametrize("name", LOADERS)
def test_supervised_only(folder: DataConfig, name: str) -> None:
    (batch,) = take(folder, name, 1, supervised_only=True)
    (full,) = take(folder, name, 1)
    assert torch.equal(batch.images, full.images)
    assert torch.equal(batch.target, full.target)
    assert not any(tensor is not None for tensor in batch[2:])


def test_the_strong_view_shows_the_same_place(folder: DataConfig) -> None:
    config = dataclasses.replace(folder, jitter=0.0, grayscale=0.0, blur=0.0)
    (batch,) = take(config, "torch", 1)
    assert torch.equal(batch.weak, batch.strong)  # type: ignore[arg-type]
    (batch,) = take(dataclasses.replace(config, jitter=1.0), "torch", 1)
    assert not torch.equal(batch.weak, batch.strong)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_comes_with_its_own_step(workers: int) -> None:
    """Also where the batches before it were made together with it."""

    def make(step: int) -> int:
        if step == 5:
            raise UserError("broken")
        return step

    with Loader("torch", make, start_step=3, workers=workers) as loader:  # type: ignore[arg-type]
        assert [next(loader), next(loader)] == [3, 4]
        with pytest.raises(UserError, match="broken"):
            next(loader)
        assert list(loader) == []


@pytest.mark.parametrize("name", LOADERS)
def test_close_ends_the_threads(folder: DataConfig, name: str) -> None:
    loader = open_loader(dataclasses.replace(folder, workers=1), name)
    assert loader.name == name
    next(loader)
    loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-loader")]
    loader.close()


@pytest.mark.parametrize("name", LOADERS)
def test_the_cache_changes_nothing(folder: DataConfig, name: str) -> None:
    """Not even when the files are gone, once every image was read."""
    expected = take(folder, name, 9)
    cached = dataclasses.replace(folder, cache="ram")
    with open_loader(cached, name) as loader:
        found = [next(loader) for _ in range(4)]
        shutil.rmtree(str(folder.root))
        found += [next(loader) for _ in range(5)]
    assert all(equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_cache_keeps_to_its_budget(folder: DataConfig, capsys: pytest.CaptureFixture) -> None:
    dataset = load_dataset(folder, supervised_only=False)
    source = Source(dataset, budget=20_000)  # two images of about 9 KB, and the one that overflows it
    for _ in range(2):
        for pair in dataset.unlabeled:
            source.image(pair)
    said = capsys.readouterr().err
    assert re.fullmatch(r"data\.cache ram: 3 of 20 images and masks fill the 0\.0 GB .* decoded each time\n", said)
