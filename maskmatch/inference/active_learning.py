"""Which images to label next: those that the network doubts, and that are unlike each other.

Greedy k-centre on the encoder's features, by which Sener and Savarese ("Active Learning for Convolutional Neural
Networks: A Core-Set Approach", 2018) choose what is to be labelled, with each image weighted by the doubt about it (the
weighted k-centre of Dyer and Frieze, 1985). The next image is the one with the largest

    doubt(image) * distance(image, the nearest one that is labelled or chosen)

The doubt about a class is the mean over pixels of p (1 - p), that about an image its sum over the classes, 1 - sum p^2:
the share of pixels that would be wrong if labels were drawn from the probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmatch.common.normalization import normalized
from maskmatch.inference.inputs import Input, in_batches, read_inputs
from maskmatch.inference.modes import evaluating, padded
from maskmatch.models import Student

FARTHEST = 2.0
"""Distance of two opposite features of length 1; of every image where nothing is labelled or chosen yet."""


class Helpful(NamedTuple):
    """An image whose mask would help."""

    path: Path
    doubt: float  # about the image, 0 to 1
    by_class: tuple[float, ...]  # the doubt about each class, whose sum it is
    distance: float  # 0 to 2, to the nearest image that is labelled or was chosen before


def most_helpful(
    network: nn.Module,
    student: Student,
    candidates: Sequence[Path],
    labeled: Sequence[Path],
    count: int,
    *,
    of_class: int | None = None,
    skipped: Callable[[str], object] = lambda _: None,
    seen: Callable[[int], object] = lambda _: None,
) -> list[Helpful]:
    """Choose up to `count` of the candidates, the most helpful first.

    Args:
        network: the student's or one like it, on any device; its training mode is kept.
        student: says how the network is fed.
        candidates: images without masks.
        labeled: images with masks; one that is among the candidates is none.
        count: how many.
        of_class: weight images by the doubt about this class alone.
        skipped: is told, in one line, of every file that cannot be read.
        seen: is told of every so many images that the network has seen.
    """
    with_masks = {path.absolute() for path in labeled}
    candidates = [path for path in candidates if path.absolute() not in with_masks]
    known = _Described.of(network, student, labeled, skipped, seen)
    described = _Described.of(network, student, candidates, skipped, seen)
    if not described.paths:
        return []
    doubts = described.doubts.sum(1) if of_class is None else described.doubts[:, of_class]
    return [
        Helpful(described.paths[i], float(described.doubts[i].sum()), tuple(described.doubts[i].tolist()), distance)
        for i, distance in choose(doubts, described.features, known.features, count)
    ]


def choose(doubts: np.ndarray, features: np.ndarray, known: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Greedy weighted k-centre.

    Args:
        doubts: weight of each of M images, float [M].
        features: theirs, of length 1, float [M, F].
        known: those of the images that are labelled, float [L, F]; L may be 0.
        count: how many images to choose.

    Returns:
        Up to `count` pairs of an image's index and its distance to the nearest that is known or was chosen before; of
        equals the first.
    """
    nearest = np.full(len(doubts), FARTHEST)
    for center in known:
        nearest = np.minimum(nearest, _distances(features, center))
    left, chosen = np.ones(len(doubts), bool), list[tuple[int, float]]()
    while left.any() and len(chosen) < count:
        index = int(np.where(left, doubts * nearest, -1).argmax())
        chosen.append((index, float(nearest[index])))
        left[index] = False
        nearest = np.minimum(nearest, _distances(features, features[index]))
    return chosen


def _distances(features: np.ndarray, center: np.ndarray) -> np.ndarray:
    return np.linalg.norm(features - center, axis=1)


class _Described(NamedTuple):
    """What the network says of images; without those that cannot be read."""

    paths: list[Path]
    doubts: np.ndarray  # float64 [M, C]
    features: np.ndarray  # float64 [M, F]

    @classmethod
    def of(
        cls,
        network: nn.Module,
        student: Student,
        paths: Iterable[Path],
        skipped: Callable[[str], object],
        seen: Callable[[int], object],
    ) -> _Described:
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        inputs = [Input(path, str(path)) for path in paths]
        found, doubts, features = list[Path](), list[np.ndarray](), list[np.ndarray]()
        for batch in in_batches(read_inputs(inputs, lambda _: True, skipped)):
            pixels = torch.from_numpy(np.stack([image.pixels for image in batch])).to(device).permute(0, 3, 1, 2)
            described = describe(network, student, pixels)
            found += [image.source for image in batch]
            doubts.append(described[0].double().cpu().numpy())
            features.append(described[1].double().cpu().numpy())
            seen(len(batch))
        if not found:
            return cls([], np.zeros((0, 1)), np.zeros((0, 1)))
        return cls(found, np.concatenate(doubts), np.concatenate(features))


@torch.no_grad()
def describe(network: nn.Module, student: Student, images: Tensor) -> tuple[Tensor, Tensor]:
    """The doubts about images and their features.

    Args:
        network: the student's or one like it; its training mode is kept.
        student: says how the network is fed.
        images: of one size, uint8 [N, 3, H, W], on the network's device.

    Returns:
        The doubt about each class, float32 [N, C], and float32 [N, F] of length 1: the mean of the encoder's last
        features over the image; where the network has no `encoder`, the shares of its classes.
    """
    height, width = images.shape[2:]
    size = student.padded_size(height), student.padded_size(width)
    inputs = padded(normalized(images, student.mean, student.std), *size)
    encoded: list[Tensor] = []
    encoder = getattr(network, "encoder", None)
    hook = encoder.register_forward_hook(lambda *call: encoded.append(_last(call[2]))) if encoder else None
    try:
        with evaluating(network):
            logits = network(inputs)
    finally:
        if hook:
            hook.remove()
    # Of what lies on padding, nothing counts.
    probabilities = _cut(logits.float(), images, size).softmax(1)
    doubts = (probabilities * (1 - probabilities)).mean((2, 3))
    features = _cut(encoded[0].float(), images, size) if encoded else probabilities
    return doubts, F.normalize(features.mean((2, 3)))


def _last(outputs: Any) -> Tensor:
    """The deepest features [N, F, h, w] of an encoder of segmentation_models.pytorch; a ViT's come with its tokens."""
    features: Tensor = (outputs[0] if isinstance(outputs, tuple) else outputs)[-1]
    return features


def _cut(values: Tensor, images: Tensor, size: tuple[int, int]) -> Tensor:
    """The part of a padded image's [N, K, h, w] that lies on the image."""
    rows, columns = (
        -(-side * there // whole) for side, there, whole in zip(images.shape[2:], values.shape[2:], size, strict=True)
    )
    return values[:, :, :rows, :columns]
