"""Two networks on the same images: counts by image, and the standard error of their difference."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from maskmatch.data import Pair
from maskmatch.data.decoding.files import read_pair
from maskmatch.metrics import ConfusionMatrix, Validator
from maskmatch.metrics.paired import counts_by_image, difference, iou, miou
from maskmatch.models import from_module


class Red(nn.Module):
    """Class 1 where an image is red, else 0."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([0.5 - images[:, :1], images[:, :1] - 0.5, torch.full_like(images[:, :1], -9)], 1)


def test_counts_by_image(tmp_path: Path) -> None:
    """Of three images of two sizes, in two parts as of two processes, against a comparison pixel by pixel."""
    generator = np.random.default_rng(0)
    pairs = []
    for index, size in enumerate([(8, 6), (8, 6), (5, 9)]):
        image, mask = generator.integers(0, 256, (*size, 3), dtype=np.uint8), generator.integers(0, 3, size, np.uint8)
        mask[0] = 255
        for name, array in (("image", image), ("mask", mask)):
            Image.fromarray(array).save(tmp_path / f"{name}{index}.png")
        pairs.append(Pair(tmp_path / f"image{index}.png", tmp_path / f"mask{index}.png"))
    student, table = from_module(Red(), mean=(0, 0, 0), std=(1, 1, 1)), np.arange(256, dtype=np.uint8)
    parts = [slice(rank, None, 2) for rank in range(2)]
    found = sum(
        counts_by_image(Validator(student, pairs[part], table, 3, "cpu"), student.network, part, 3, lambda one: one)
        for part in parts
    )
    for counts, pair in zip(found, pairs, strict=True):
        assert pair.mask is not None
        image, target = read_pair(pair.image, pair.mask, table)
        label, valid = (image[..., 0] > 127).astype(int), target != 255
        for c in range(3):
            expected = [((label == c) & (target == c) & valid).sum(), (target == c).sum(), ((label == c) & valid).sum()]
            assert counts[:, c].tolist() == expected


def test_iou_is_that_of_the_confusion_matrix() -> None:
    target, prediction = torch.randint(0, 3, (2, 4, 50), generator=torch.Generator().manual_seed(0))
    confusion = ConfusionMatrix(4)  # of which one occurs nowhere
    confusion.update(prediction, target)
    matrix = confusion.matrix.numpy()
    counts = np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])
    assert iou(counts) == pytest.approx(np.array(confusion.compute().iou), nan_ok=True)
    assert float(miou(counts)) == pytest.approx(confusion.compute().miou)
    assert np.isnan(miou(np.zeros((3, 4)))) and np.isnan(iou(counts)[3])


def test_the_error_of_a_difference() -> None:
    """Against all samples of three images, each as likely as the others."""
    generator = np.random.default_rng(1)
    one, other = (generator.integers(20, 90, (3, 3, 4)) for _ in range(2))
    for counts in (one, other):
        counts[:, 1:] += counts[:, :1]
    samples = [list(sample) for sample in product(range(3), repeat=3)]
    exact = np.std([miou(one[sample].sum(0)) - miou(other[sample].sum(0)) for sample in samples])
    found = difference(one, other)
    assert found.value == pytest.approx(miou(one.sum(0)) - miou(other.sum(0)))
    assert found.error == pytest.approx(exact, rel=0.1)
    assert difference(one, one) == (0, 0)
    assert np.isnan(difference(one[:1], other[:1]).error)
