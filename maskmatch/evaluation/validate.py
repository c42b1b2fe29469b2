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
from torch.nn import functional as F

from maskmatch.data import Pair, read_pair
from maskmatch.errors import UserError
from maskmatch.evaluation.metrics import ConfusionMatrix, Metrics
from maskmatch.models import Student
from maskmatch.ops import multiscale_pseudo_label

READERS = 2
"""Threads that decode images while the network computes."""
READ_AHEAD = 8
"""Decoded images that may wait for the network."""
BATCH_PIXELS = 2**18
"""Images of one size share a forward up to this many pixels: two of VOC's, none of Cityscapes'."""


class _Sample(NamedTuple):
    image: np.ndarray  # uint8 [H, W, 3]
    target: np.ndarray  # uint8 [H, W]


class Validator:
    """Measures networks of one kind on one list of images.

    The images are padded at the right and at the bottom to what the network takes, and what it says of the
    padding is cut off again: every pixel of every image counts once, at the image's own resolution.
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
    ) -> None:
        """`student` says how to feed a network; `mask_table` is `Dataset.mask_table`.

        Of several processes each has its own part of the list; `total` adds their int64 [C, C] counts up.
        """
        self.student = student
        self.pairs = pairs
        self.mask_table = mask_table
        self.num_classes = num_classes
        self.device = torch.device(device)
        self.total = total

    def __call__(self, network: nn.Module) -> Metrics:
        """Run `network`, the student's or one like it, on the device; its training mode is kept."""
        confusion = ConfusionMatrix(self.num_classes, self.device)
        for images, targets in self._batches():
            label, _ = _predict_batch(network, self.student, images.to(self.device, non_blocking=True))
            confusion.update(label, targets.to(self.device, non_blocking=True))
        if self.total:
            confusion.matrix = self.total(confusion.matrix)
        return confusion.compute()

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
            for pair in self.pairs:
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


def predict(network: nn.Module, student: Student, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class and confidence of every pixel of one image.

    Args:
        network: the student's or one like it, on any device; its training mode is kept.
        student: says how the network is fed.
        image: uint8 [H, W, 3], RGB, of any size.

    Returns:
        label uint8 [H, W] and confidence (the label's softmax probability) float32 [H, W].
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    label, confidence = _predict_batch(network, student, torch.tensor(image[None], device=device))
    return label[0].cpu().numpy(), confidence[0].cpu().numpy()


@torch.no_grad()
def _predict_batch(network: nn.Module, student: Student, images: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, H, W, 3] -> label uint8 [N, H, W], confidence float32 [N, H, W]."""
    height, width = images.shape[1:3]
    size = student.padded_size(height), student.padded_size(width)
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (student.mean, student.std))
    inputs = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        logits = network(F.pad(inputs, (0, size[1] - width, 0, size[0] - height)))
    finally:
        for module in training:
            module.training = True
    label, confidence = multiscale_pseudo_label([logits], size, align_corners=student.align_corners)
    return label[:, :height, :width], confidence[:, :height, :width]
