"""The two loaders deliver the same images, crops and masks, and the same on a GPU as on the CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from maskmatch.common.batch import Batch
from maskmatch.config import DataConfig
from tests.data.loaders import LOADERS, delivered, needs_dali, open_loader, take


def near(a: Batch, b: Batch, strong: float) -> None:
    """Masks agree, weak views to 0.5 on average of an image, strong ones to `strong`."""
    assert torch.equal(a.target, b.target)
    assert torch.equal(a.valid, b.valid)  # type: ignore[arg-type]
    assert torch.equal(a.seeds, b.seeds)  # type: ignore[arg-type]
    for ours, theirs in ((a.images, b.images), (a.weak, b.weak)):
        # Measured on the CPU: 0.16 to 0.25.
        assert (ours.float() - theirs.float()).abs().mean((1, 2, 3)).max() < 0.5  # type: ignore[union-attr]
    assert (a.strong.float() - b.strong.float()).abs().mean() < strong  # type: ignore[union-attr]


def compare(config: DataConfig, steps: int) -> None:
    for a, b in zip(take(config, "dali", steps), take(config, "torch", steps), strict=True):
        near(a, b, strong=0.5)


@needs_dali
def test_loaders_agree(folder: DataConfig) -> None:
    compare(folder, 10)


@needs_dali
def test_loaders_agree_on_photographs(camvid: DataConfig) -> None:
    compare(camvid, 5)


@needs_dali
def test_loaders_agree_on_unusual_files(folder: DataConfig) -> None:
    root = Path(str(folder.root))
    for index, mode in ((2, "P"), (4, "RGBA"), (6, "L"), (8, "1")):
        Image.open(root / f"images/{index}.png").convert(mode).save(root / f"images/{index}.png")
    Image.open(root / "images/7.jpg").convert("CMYK").save(root / "images/7.jpg")
    Image.open(root / "images/9.jpg").save(root / "images/9.jpg", format="WEBP", lossless=True)
    for index in (1, 3):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(root / f"images/{index}.jpg").save(root / f"images/{index}.jpg", exif=exif)
    Image.open(root / "images/5.jpg").convert("L").save(root / "images/5.jpg")
    compare(folder, 4)


@needs_dali
@pytest.mark.parametrize("decoded", [False, True])
def test_the_graph_for_a_gpu(decoded: bool) -> None:
    """It is constructed, so that its operators exist for the devices; only building it needs a driver."""
    from maskmatch.data.loading.dali_decoder import weak_view_pipeline

    options = {"batch_size": 4, "num_threads": 1, "device_id": 0, "exec_dynamic": True}
    (node,) = weak_view_pipeline((32, 32), True, decoded, **options)._graph_out
    chain = []
    while node.source.inputs:
        chain.append((type(node.source._op).__name__, node.source._op.device))
        node = node.source.inputs[0]
    assert chain[:3] == [("Pad", "gpu"), ("Flip", "gpu"), ("Resize", "gpu")]
    assert chain[3:] == ([] if decoded else [("Image", "mixed")])


@pytest.mark.gpu
@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize("name", LOADERS)
def test_batches_on_a_gpu_are_those_of_the_cpu(folder: DataConfig, name: str, cache: str) -> None:
    """By the same bounds as the two loaders on the CPU; the strong view rounds differently there."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    config = dataclasses.replace(folder, cache=cache)
    with open_loader(config, name, device=device) as on_gpu, open_loader(config, name) as on_cpu:
        for _ in range(5):
            ours, theirs = next(on_gpu), next(on_cpu)
            assert all(tensor.device.type == "cuda" for tensor in delivered(ours))
            moved = Batch(*(tensor.cpu() for tensor in delivered(ours)))
            near(moved, theirs, strong=3.0)


@pytest.mark.gpu
def test_normalized_output_on_a_gpu(folder: DataConfig) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    normalize, device = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]), torch.device("cuda")
    (plain,) = take(folder, "torch", 1, device=device)
    (batch,) = take(folder, "torch", 1, device=device, normalize=normalize)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in normalize)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch.strong, (plain.strong / 255 - mean) / std)  # type: ignore[operator]
