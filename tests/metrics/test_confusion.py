"""Metrics agree with torchmetrics and with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.metrics import ConfusionMatrix


def random_batch(
    seed: int, classes: int, present: int, ignored: float, shape: tuple[int, ...] = (2, 9, 7)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and target of `present` of the classes; about half of the pixels agree."""
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, present, shape, generator=generator, dtype=torch.uint8)
    target = torch.randint(0, present, shape, generator=generator, dtype=torch.uint8)
    target = torch.where(torch.rand(shape, generator=generator) < 0.5, prediction, target)
    target[torch.rand(shape, generator=generator) < ignored] = IGNORE_INDEX
    target.view(-1)[0] = 0  # at least one pixel counts
    return prediction.clamp(max=classes - 1), target


@given(st.integers(0, 10**6), st.integers(2, 21), st.data(), st.sampled_from([0.0, 0.3, 0.95]))
def test_equal_to_torchmetrics(seed: int, classes: int, data: st.DataObject, ignored: float) -> None:
    present = data.draw(st.integers(1, classes))
    prediction, target = random_batch(seed, classes, present, ignored)
    confusion = ConfusionMatrix(classes)
    confusion.update(prediction, target)
    metrics = confusion.compute()

    def theirs(metric: type, average: str) -> torch.Tensor:
        return metric(classes, average=average, ignore_index=IGNORE_INDEX)(prediction.long(), target.long())

    assert metrics.miou == pytest.approx(theirs(MulticlassJaccardIndex, "macro").item(), abs=1e-6)
    assert metrics.pixel_accuracy == pytest.approx(theirs(MulticlassAccuracy, "micro").item(), abs=1e-6)
    # torchmetrics says 0 for a class that occurs nowhere, we say nan.
    np.testing.assert_allclose(np.nan_to_num(metrics.iou), theirs(MulticlassJaccardIndex, "none"), atol=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 8))
def test_equal_to_the_definition(seed: int, classes: int) -> None:
    prediction, target = random_batch(seed, classes, classes, 0.2)
    confusion = ConfusionMatrix(classes)
    confusion.update(prediction, target)
    metrics = confusion.compute()
    predicted, truth = (tensor[target != IGNORE_INDEX].numpy() for tensor in (prediction, target))
    recalls = [np.mean(predicted[truth == c] == c) for c in np.unique(truth)]
    assert metrics.mean_accuracy == pytest.approx(np.mean(recalls))
    for c in range(classes):
        union = np.sum((predicted == c) | (truth == c))
        expected = np.sum((predicted == c) & (truth == c)) / union if union else math.nan
        assert metrics.iou[c] == pytest.approx(expected, nan_ok=True)


def test_batches_add_up() -> None:
    batches = [random_batch(seed, 5, 5, 0.1) for seed in range(3)]
    one, many = ConfusionMatrix(5), ConfusionMatrix(5)
    one.update(torch.cat([prediction for prediction, _ in batches]), torch.cat([target for _, target in batches]))
    for prediction, target in batches:
        many.update(prediction, target)
    assert torch.equal(one.matrix, many.matrix)
    assert one.matrix.sum() == sum((target != IGNORE_INDEX).sum() for _, target in batches)


def test_rows_are_targets() -> None:
    confusion = ConfusionMatrix(3)
    confusion.update(torch.tensor([[1, 1, 2]], dtype=torch.uint8), torch.tensor([[0, 1, IGNORE_INDEX]]))
    assert confusion.matrix.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_absent_classes_do_not_count() -> None:
    confusion = ConfusionMatrix(4)
    target = torch.tensor([[0, 0, 1, 1]])
    confusion.update(target, target)
    metrics = confusion.compute()
    assert metrics.miou == metrics.mean_accuracy == metrics.pixel_accuracy == 1
    assert metrics.iou[:2] == [1, 1]
    assert all(map(math.isnan, metrics.iou[2:]))


def test_largest_number_of_classes() -> None:
    """254 and 255 are neighbours: the last class and the ignored pixels must not mix in uint8 arithmetic."""
    confusion = ConfusionMatrix(255)
    target = torch.tensor([[254, IGNORE_INDEX, 0]], dtype=torch.uint8)
    confusion.update(torch.tensor([[254, 254, 254]], dtype=torch.uint8), target)
    assert confusion.matrix.nonzero().tolist() == [[0, 254], [254, 254]]


def test_nothing_measured_is_nan() -> None:
    metrics = ConfusionMatrix(2).compute()
    assert math.isnan(metrics.miou)
    assert math.isnan(metrics.pixel_accuracy)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3, 4\], got \[2, 3, 5\]"):
        ConfusionMatrix(2).update(torch.zeros(2, 3, 5), torch.zeros(2, 3, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_counting_does_not_wait_for_the_device() -> None:
    prediction, target = (tensor.cuda() for tensor in random_batch(0, 5, 5, 0.1))
    confusion = ConfusionMatrix(5, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        confusion.update(prediction, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = ConfusionMatrix(5)
    expected.update(prediction.cpu(), target.cpu())
    assert torch.equal(confusion.matrix.cpu(), expected.matrix)
