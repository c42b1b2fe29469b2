"""From a step number to a training batch, and the loader that does it ahead of time.

`BatchMaker` is a pure function of the step; a `Decoder` is the part of it that DALI and torch do differently.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskmatch.common.batch import IGNORE_INDEX, Batch
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.decoding.files import FileError
from maskmatch.data.loading.handover import Handover, Made
from maskmatch.data.loading.sampling import LABELED, UNLABELED, Sample, samples_of_step
from maskmatch.data.loading.source import Source
from maskmatch.data.loading.views import Geometry, Normalize, crop_mask, plan, strong_view, strong_view_on_device

Item = tuple[Pair, Sample]
CPU = torch.device("cpu")
AT_ONCE = 4  # batches that a loader without threads makes together


class Decoder(Protocol):
    """Decodes, resizes, crops, flips and pads the images of a batch."""

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, list[Geometry]]:
        """Weak views, uint8 [N, H, W, 3], and how each was cut out."""
        ...


@dataclass(eq=False)
class BatchMaker:
    """step -> batch. Labelled and unlabelled images are two independent streams over their lists."""

    dataset: Dataset
    config: DataConfig
    source: Source
    decode: Decoder
    _: KW_ONLY
    global_batch: int
    seed: int
    device: torch.device
    supervised_only: bool
    rank: int
    world_size: int
    normalize: Normalize | None
    measured: Callable[[int], bool]
    broken: set[Path] = field(default_factory=set)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device."""
        while True:
            try:
                return self._batch(step)
            except FileError as error:
                if self.config.on_error == "fatal":
                    raise
                self._skip(error)

    def _skip(self, error: FileError) -> None:
        """From now on the next whole image of its list is shown wherever the broken one would be."""
        if error.path not in self.broken:
            print(f"skipped from now on: {error}", file=sys.stderr)
        self.broken.add(error.path)

    def _batch(self, step: int) -> Batch:
        labeled = self._items(step, LABELED, self.dataset.labeled)
        unlabeled = [] if self.supervised_only else self._items(step, UNLABELED, self.dataset.unlabeled)
        views, geometries = self.decode(labeled + unlabeled)
        count = len(labeled)
        target = self._targets(labeled, geometries[:count], views.shape[1:3])
        if self.supervised_only:
            batch = Batch(_channels_first(views), target, None, None, None, None)
        else:
            weak, samples = views[count:], [sample for _, sample in unlabeled]
            batch = Batch(
                images=_channels_first(views[:count]),
                target=target,
                weak=_channels_first(weak),
                strong=_channels_first(_strong_views(weak, samples, geometries[count:])),
                valid=_valid(geometries[count:], views.shape[1:3]),
                seeds=torch.tensor([sample.seed for sample in samples], dtype=torch.int64),
                truth=self._truth(unlabeled, views.shape[1:3]) if self.measured(step) else None,
            )
        batch = Batch(*(None if tensor is None else self._on_device(tensor) for tensor in batch))  # type: ignore[arg-type]
        return _normalized(batch, self.normalize) if self.normalize else batch

    def _on_device(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == self.device.type:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)  # not pinned, the copy would wait for the device

    def _items(self, step: int, stream: int, pairs: Sequence[Pair]) -> list[Item]:
        samples = samples_of_step(
            step,
            global_batch=self.global_batch,
            length=len(pairs),
            seed=self.seed,
            stream=stream,
            config=self.config,
            rank=self.rank,
            world_size=self.world_size,
        )
        return [(self._whole(pairs, sample.id), sample) for sample in samples]

    def _whole(self, pairs: Sequence[Pair], index: int) -> Pair:
        for offset in range(len(pairs)):
            pair = pairs[(index + offset) % len(pairs)]
            if not self.broken or self.broken.isdisjoint(pair):
                return pair
        raise UserError(f"expected at least one readable image, got none in a list of {len(pairs)}")

    def _targets(self, items: Sequence[Item], geometries: Sequence[Geometry], size: Sequence[int]) -> Tensor:
        """Masks cut out like their images, uint8 [N, H, W]; the same code for both decoders."""
        target = np.empty((len(items), *size), np.uint8)
        for (pair, _), geometry, out in zip(items, geometries, target, strict=True):
            mask = self.source.mask(pair)
            if mask.shape != (geometry.rows.length, geometry.columns.length):
                got = f"{mask.shape[1]}x{mask.shape[0]}"
                raise FileError(f"expected a mask of its image's size, got {got}", pair.mask or pair.image)
            crop_mask(mask, geometry, out)
            if ((out >= self.dataset.num_classes) & (out != IGNORE_INDEX)).any():
                raise FileError("expected a mask of known classes, got another value", pair.mask or pair.image)
        return torch.from_numpy(target)

    def images(self, step: int, *, labeled: bool) -> list[Path]:
        """The images of a step's batch."""
        stream, pairs = (LABELED, self.dataset.labeled) if labeled else (UNLABELED, self.dataset.unlabeled)
        return [pair.image for pair, _ in self._items(step, stream, pairs)]

    def _truth(self, items: Sequence[Item], size: Sequence[int]) -> Tensor | None:
        """True classes of unlabelled images, uint8 [M, H, W]; IGNORE_INDEX in those that have no good mask.

        None where the list names no masks at all.
        """
        if not self.dataset.truth:
            return None
        height, width = size
        truth = np.full((len(items), height, width), IGNORE_INDEX, np.uint8)
        for (pair, sample), out in zip(items, truth, strict=True):
            path = self.dataset.truth.get(pair.image)
            if path is not None and path.is_file():
                with contextlib.suppress(FileError):
                    mask = self.source.mask(pair._replace(mask=path))
                    crop_mask(mask, plan(mask.shape[0], mask.shape[1], sample, (height, width)), out)
        truth[truth >= self.dataset.num_classes] = IGNORE_INDEX
        return torch.from_numpy(truth)


def _strong_views(weak: Tensor, samples: Sequence[Sample], geometries: Sequence[Geometry]) -> Tensor:
    """Strong views of uint8 [N, H, W, 3] weak ones, computed where those are."""
    sizes = [geometry.size for geometry in geometries]
    if weak.is_cuda:
        strong = torch.zeros_like(weak)
        for view, sample, (height, width), out in zip(weak, samples, sizes, strong, strict=True):
            out[:height, :width] = strong_view_on_device(view[:height, :width], sample)
        return strong
    # In numpy: torch would start a team of threads for each of the loader's.
    views = np.zeros(weak.shape, np.uint8)
    for view, sample, (height, width), out in zip(weak.numpy(), samples, sizes, views, strict=True):
        out[:height, :width] = strong_view(view[:height, :width], sample)
    return torch.from_numpy(views)


def _valid(geometries: Sequence[Geometry], size: Sequence[int]) -> Tensor:
    """bool [N, H, W], False on padding."""
    valid = np.zeros((len(geometries), *size), bool)
    for geometry, out in zip(geometries, valid, strict=True):
        out[: geometry.size[0], : geometry.size[1]] = True
    return torch.from_numpy(valid)


def _channels_first(views: Tensor) -> Tensor:
    """[N, H, W, 3] -> [N, 3, H, W] in channels-last memory, without a copy."""
    return views.permute(0, 3, 1, 2)


def _normalized(batch: Batch, normalize: Normalize) -> Batch:
    images = {name: getattr(batch, name) for name in ("images", "weak", "strong")}
    return batch._replace(**{name: normalize(views) for name, views in images.items() if views is not None})


def _call(make: Callable[[int], Made], step: int) -> Future[Made]:
    """What a pool's `submit` does, at once; an error is for whoever asks for the result."""
    made: Future[Made] = Future()
    try:
        made.set_result(make(step))
    except Exception as error:
        made.set_exception(error)
    return made


class Loader(Iterator[Batch]):
    """Endless batches from step `start_step` on, made ahead of time by `workers` threads.

    Without any they are made when none is left, AT_ONCE together: after a step the processor's caches hold nothing of
    all this, so that each one alone takes half as long again.

    The threads spend their time in image libraries that release the interpreter. An error of one step is
    raised where that step's batch is asked for, and closes the loader.
    """

    def __init__(
        self, name: str, make: BatchMaker, *, start_step: int, workers: int, device: torch.device = CPU
    ) -> None:
        self.name = name
        self._maker = make
        self._handover = Handover(device)
        self._next_step = start_step
        self._closed = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"{name}-loader") if workers else None
        self._pending: deque[Future[Made]] = deque()
        for _ in range(workers + 1 if workers else 0):
            self._submit()

    @property
    def skipped(self) -> tuple[Path, ...]:
        """The files that broke since the start and are left out, with `data.on_error skip`."""
        return tuple(sorted(self._maker.broken))

    def images(self, step: int, *, labeled: bool) -> list[Path]:
        """The images of a step's batch, labelled or not."""
        return self._maker.images(step, labeled=labeled)

    def _submit(self) -> None:
        """Have one batch more made, without threads now."""
        submit = self._pool.submit if self._pool else _call
        self._pending.append(submit(self._make, self._next_step))
        self._next_step += 1

    def _make(self, step: int) -> Made:
        return self._handover.make(lambda: self._maker(step))

    def __next__(self) -> Batch:
        if self._closed:
            raise StopIteration
        try:
            if not self._pending:
                for _ in range(AT_ONCE):
                    self._submit()
            batch = self._handover.take(self._pending.popleft().result())
            if self._pool:
                self._submit()
        except BaseException:
            self.close()
            raise
        return batch

    def settle(self) -> None:
        """Wait until the batches that are made ahead are ready, so that no thread works."""
        wait(self._pending)

    def close(self) -> None:
        """End the threads; batches not yet taken are dropped."""
        self._closed = True
        self._pending.clear()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
