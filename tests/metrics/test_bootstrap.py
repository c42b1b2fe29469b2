"""Counts by image, and the standard errors of an mIoU and of a difference of two."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from maskmatch.data import Pair
from maskmatch.data.decoding.files import read_pair
from maskmatch.metrics import ConfusionMatrix, ImageCounts, Validator
from maskmatch.metrics.bootstrap import difference, iou, miou, standard_error, with_error
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
        Validator(student, pairs, table, 3, "cpu", share=part).counts(student.network).counts.numpy() for part in parts
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
    counted = ConfusionMatrix(4)  # of which one occurs nowhere
    counted.update(prediction, target)
    matrix = counted.matrix.numpy()
    counts = np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])
    assert iou(counts) == pytest.approx(np.array(counted.compute().iou), nan_ok=True)
    assert float(miou(counts)) == pytest.approx(counted.compute().miou)
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


def test_the_error_of_an_miou() -> None:
    """Likewise, and of images of one class its binomial: of n images k are all right, the others all wrong."""
    counts = np.random.default_rng(2).integers(20, 90, (3, 3, 4))
    counts[:, 1:] += counts[:, :1]
    samples = [list(sample) for sample in product(range(3), repeat=3)]
    exact = np.std([miou(counts[sample].sum(0)) for sample in samples])
    assert standard_error(counts) == pytest.approx(exact, rel=0.1)
    right = np.arange(50) < 40
    alike = np.stack([7 * right, np.full(50, 7), 7 * right], 1)[..., None]
    assert standard_error(alike) == pytest.approx((0.8 * 0.2 / 50) ** 0.5, rel=0.1)
    assert standard_error(counts) == standard_error(counts) and np.isnan(standard_error(counts[:1]))


@pytest.mark.parametrize("at_once", [1, 7, 10**9])
def test_however_many_are_drawn_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(3).integers(20, 90, (5, 3, 4))
    counts[:, 1:] += counts[:, :1]
    before = standard_error(counts)
    monkeypatch.setattr("maskmatch.metrics.bootstrap.AT_ONCE", at_once)
    assert standard_error(counts) == before


@pytest.mark.parametrize("width", [2, 40])
def test_metrics_are_those_of_the_confusion_matrix(width: int) -> None:
    """Bit by bit."""
    target, prediction = torch.randint(0, 4, (2, 5, 6, width), generator=torch.Generator().manual_seed(0))
    target[:, 0] = 255
    counted, images = ConfusionMatrix(4), ImageCounts(5, 4, "cpu")
    counted.update(prediction, target)
    for part in (slice(0, 2), slice(2, 5)):
        images.update(prediction[part], target[part])
    found = images.compute()
    assert dataclasses.replace(found, error=counted.compute().error) == counted.compute()
    assert found.error == standard_error(images.counts.numpy()) and found.text() == with_error(found.miou, found.error)


def test_text() -> None:
    assert with_error(0.51234, 0.0211) == "0.5123 +- 0.0211" and with_error(0.5, 0.02, 3) == "0.500 +- 0.020"
    assert with_error(0.5, float("nan")) == with_error(0.5, None) == "0.5000 +- ?"
