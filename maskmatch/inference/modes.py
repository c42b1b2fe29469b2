"""A network over images of any size: whole, in windows or resized; at several scales and flipped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmatch.common.errors import UserError
from maskmatch.common.normalization import normalized
from maskmatch.models import Student
from maskmatch.ops import multiscale_pseudo_label

Mode = Literal["whole", "slide", "resize"]
WINDOW_STEP = 2 / 3
"""Distance of neighbouring windows, in windows: each overlaps the next by a third, as the field has it."""
BATCH_PIXELS = 2**18
"""Images and windows of one size share a forward up to this many pixels: two of VOC's, none of Cityscapes'."""


@dataclass(frozen=True)
class Inference:
    """How an image is shown to the network. Results are always at the image's own resolution."""

    mode: Mode = "whole"
    """`whole`: padded at the right and at the bottom to what the network takes; `slide`: in overlapping windows of
    one size, the last ones moved inside; `resize`: stretched to the window's size."""
    window: tuple[int, int] | None = None
    """Height and width that the network takes; `whole` needs none."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which the image is shown, relative to its own; the probabilities are averaged."""
    flip: bool = False
    """Show it mirrored as well."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be."""
        if self.mode not in get_args(Mode):
            raise UserError(f"mode: expected one of {', '.join(get_args(Mode))}, got {self.mode}")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise UserError(f"scales: expected positive numbers, got {list(self.scales)}")
        if self.mode != "whole" and (self.window is None or min(self.window) < 1):
            raise UserError(f"window: expected the height and width of a {self.mode} window, got {self.window}")


WHOLE = Inference()


def predict(
    network: nn.Module, student: Student, image: np.ndarray, how: Inference = WHOLE
) -> tuple[np.ndarray, np.ndarray]:
    """Class and confidence of every pixel of one image.

    Args:
        network: the student's or one like it, on any device; its training mode is kept.
        student: says how the network is fed.
        image: uint8 [H, W, 3], RGB, of any size.
        how: the image is shown to the network.

    Returns:
        label uint8 [H, W] and confidence (the label's softmax probability) float32 [H, W].
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    images = torch.tensor(image[None], device=device).permute(0, 3, 1, 2)
    label, confidence = predict_batch(network, student, images, how)
    return label[0].cpu().numpy(), confidence[0].cpu().numpy()


@torch.no_grad()
def predict_batch(
    network: nn.Module, student: Student, images: Tensor, how: Inference = WHOLE
) -> tuple[Tensor, Tensor]:
    """Images of one size, uint8 or in units of [0, 1], [N, 3, H, W] -> label uint8, confidence float32, [N, H, W]."""
    height, width = images.shape[2:]
    inputs = normalized(images, student.mean, student.std)
    with evaluating(network):
        if how.mode != "slide" and how.scales == (1.0,) and not how.flip:
            if how.mode == "whole":
                inputs = padded(inputs, student.padded_size(height), student.padded_size(width))
            else:
                inputs = _resized(inputs, _window(how, student))
            size = inputs.shape[2:] if how.mode == "whole" else (height, width)
            label, confidence = multiscale_pseudo_label(
                [network(inputs)], (size[0], size[1]), align_corners=student.align_corners
            )
            return label[:, :height, :width], confidence[:, :height, :width]
        probabilities = _probabilities(network, student, inputs, how)
    confidence, label = probabilities.max(1)
    return label.to(torch.uint8), confidence


def _probabilities(network: nn.Module, student: Student, inputs: Tensor, how: Inference) -> Tensor:
    """float32 [N, C, H, W]: the mean over scales and flips."""
    views = list(product(how.scales, (False, True) if how.flip else (False,)))
    total = None
    for scale, flipped in views:
        shown = inputs.flip(3) if flipped else inputs
        probabilities = _resized(_view(network, student, shown, how, scale), inputs.shape[2:])
        probabilities = probabilities.flip(3) if flipped else probabilities
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None  # noqa: S101 - Inference has at least one scale
    return total.div_(len(views))


def _view(network: nn.Module, student: Student, inputs: Tensor, how: Inference, scale: float) -> Tensor:
    """The probabilities at one scale, float32 [N, C, h, w], at the size of what was shown."""
    if how.mode == "resize":
        return _forward(network, student, _resized(inputs, _window(how, student, scale)))
    height, width = (max(1, round(side * scale)) for side in inputs.shape[2:])
    inputs = _resized(inputs, (height, width))
    if how.mode == "slide":
        return _slide(network, student, inputs, _window(how, student))
    inputs = padded(inputs, student.padded_size(height), student.padded_size(width))
    return _forward(network, student, inputs)[:, :, :height, :width]


def _slide(network: nn.Module, student: Student, inputs: Tensor, window: tuple[int, int]) -> Tensor:
    """The mean of the probabilities over overlapping windows of one size."""
    count, _, height, width = inputs.shape
    inputs = padded(inputs, max(height, window[0]), max(width, window[1]))
    corners = list(product(*(_starts(side, size) for side, size in zip(inputs.shape[2:], window, strict=True))))
    total, times = None, torch.zeros(inputs.shape[2:], device=inputs.device)
    at_once = max(1, BATCH_PIXELS // (count * window[0] * window[1]))
    for first in range(0, len(corners), at_once):
        places = [
            (slice(top, top + window[0]), slice(left, left + window[1]))
            for top, left in corners[first : first + at_once]
        ]
        outputs = _forward(network, student, torch.cat([inputs[:, :, rows, columns] for rows, columns in places]))
        if total is None:
            total = outputs.new_zeros(count, outputs.shape[1], *inputs.shape[2:])
        for (rows, columns), probabilities in zip(places, outputs.split(count), strict=True):
            total[:, :, rows, columns] += probabilities
            times[rows, columns] += 1
    assert total is not None  # noqa: S101 - there is at least one window
    return (total / times)[:, :, :height, :width]


def _starts(side: int, window: int) -> list[int]:
    """Where windows begin along a side: evenly, but for the last one, which ends with the side."""
    step = max(1, round(window * WINDOW_STEP))
    return [*range(0, side - window, step), side - window]


def _forward(network: nn.Module, student: Student, inputs: Tensor) -> Tensor:
    """Probabilities at the inputs' resolution, float32."""
    logits = network(inputs).float()
    return F.interpolate(logits, inputs.shape[2:], mode="bilinear", align_corners=student.align_corners).softmax(1)


def _window(how: Inference, student: Student, scale: float = 1.0) -> tuple[int, int]:
    height, width = how.window or (0, 0)
    return student.nearest_size(height * scale), student.nearest_size(width * scale)


def padded(images: Tensor, height: int, width: int) -> Tensor:
    """Images [N, C, H, W] with zeros at the right and at the bottom, up to a size."""
    return F.pad(images, (0, width - images.shape[3], 0, height - images.shape[2]))


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    if images.shape[2:] == tuple(size):
        return images
    return F.interpolate(images, tuple(size), mode="bilinear", align_corners=False)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in eval mode; each module's training mode is put back afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
