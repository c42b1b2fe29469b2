"""Whole images through a network, each at its own resolution."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from maskmatch.common.errors import UserError
from maskmatch.data import Pair, read_pair
from maskmatch.inference.modes import BATCH_PIXELS, WHOLE, Inference, predict_batch
from maskmatch.metrics.confusion import ImageCounts, Metrics
from maskmatch.models import Student

READERS = 2
"""Threads that decode images while the network computes."""
READ_AHEAD = 8
"""Decoded images that may wait for the network."""


class _Sample(NamedTuple):
    image: np.ndarray  # uint8 [H, W, 3]
    target: np.ndarray  # uint8 [H, W]


class Validator:
    """Measures networks of one kind on one list of images.

    What the network says of padding is cut off: every pixel of every image counts once, at the image's own resolution.
    """

    def __init__(
        self,
        student: Student,
        pairs: Sequence[Pair],
        mask_table: np.ndarray,
        num_classes: int,
        device: torch.device | str,
        *,
        total: Callable[[Tensor], Tensor] | None = None,
        share: slice = slice(None),
        how: Inference = WHOLE,
    ) -> None:
        """`student` says how to feed a network; `mask_table` is `Dataset.mask_table`; `how` an image is shown to it.

        Of several processes each looks at its `share` of the list; `total` adds their int64 counts up.
        """
        self.student = student
        self.pairs = pairs
        self.mask_table = mask_table
        self.num_classes = num_classes
        self.device = torch.device(device)
        self.total = total
        self.share = share
        self.how = how

    def __call__(self, network: nn.Module) -> Metrics:
        """Run `network`, the student's or one like it, on the device; its training mode is kept."""
        return self.counts(network).compute()

    def counts(self, network: nn.Module) -> ImageCounts:
        """What its metrics follow from, image by image, of all processes."""
        counts = ImageCounts(len(self.pairs), self.num_classes, self.device, self.share)
        for label, _, target in self.predictions(network):
            counts.update(label, target)
        if self.total:
            counts.counts = self.total(counts.counts)
        return counts

    def predictions(self, network: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Label uint8, confidence float32 and target uint8, [N, H, W] on the device, of one batch after the other."""
        for images, targets in self._batches():
            on_device = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            label, confidence = predict_batch(network, self.student, on_device, self.how)
            yield label, confidence, targets.to(self.device, non_blocking=True)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive images of one size as uint8 [N, H, W, 3] and their targets as uint8 [N, H, W]."""
        for (height, width), run in groupby(self._samples(), key=lambda sample: sample.target.shape):
            size = max(1, BATCH_PIXELS // (height * width))
            while batch := list(islice(run, size)):
                images, targets = zip(*batch, strict=True)
                yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))

    def _samples(self) -> Iterator[_Sample]:
        """The decoded images in order, a few of them read ahead."""
        with ThreadPoolExecutor(READERS) as pool:
            pending: deque[Future[_Sample]] = deque()
            for pair in self.pairs[self.share]:
                pending.append(pool.submit(self._read, pair))
                if len(pending) > READ_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _read(self, pair: Pair) -> _Sample:
        if pair.mask is None:
            raise UserError(f"validation needs a mask for every image, got none for {pair.image}")
        image, target = read_pair(pair.image, pair.mask, self.mask_table)
        if image.shape[:2] != target.shape:
            raise UserError(f"{pair.mask} is of size {target.shape}, its image {pair.image} of {image.shape[:2]}")
        return _Sample(image, target)
