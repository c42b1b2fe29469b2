"""Validation equals the plain loop: one image at a time, padded, upsampled, cropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.config import ModelConfig
from maskmatch.data import Pair, read_image, read_mask
from maskmatch.inference.modes import predict
from maskmatch.metrics import ConfusionMatrix, Metrics, Validator
from maskmatch.metrics import validator as validate
from maskmatch.models import Student, build_student, from_module

CLASSES = 4
TABLE = np.arange(256, dtype=np.uint8)
WritePairs = Callable[[Sequence[tuple[int, int]]], list[Pair]]
MIXED = [(33, 47), (33, 47), (33, 47), (64, 64), (33, 47), (1, 90), (90, 1)]


@pytest.fixture(scope="module", params=[False, True], ids=["half-pixel", "align-corners"])
def student(request: pytest.FixtureRequest) -> Student:
    """A strided network with BatchNorm and dropout, which act differently in training."""
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 5, stride=4, padding=2)
    head = nn.Conv2d(8, CLASSES, 3, padding=1)
    network = nn.Sequential(stem, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), head)
    return from_module(network, size_multiple=16, min_size=32, align_corners=request.param, mean=(0.4, 0.5, 0.6))


def plain_probabilities(student: Student, image: np.ndarray) -> Tensor:
    """Softmax of the upsampled logits, [C, H, W], for one image and written out."""
    height, width = image.shape[:2]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (student.mean, student.std))
    padded = torch.zeros(1, 3, max(32, -(-height // 16) * 16), max(32, -(-width // 16) * 16))
    padded[0, :, :height, :width] = (torch.tensor(image).permute(2, 0, 1) / 255 - mean) / std
    with torch.no_grad():
        logits = student.network.eval()(padded)
    logits = F.interpolate(logits, padded.shape[2:], mode="bilinear", align_corners=student.align_corners)
    return logits.softmax(1)[0, :, :height, :width]


def plain_metrics(student: Student, pairs: list[Pair]) -> Metrics:
    confusion = ConfusionMatrix(CLASSES)
    for pair in pairs:
        target = torch.tensor(read_mask(pair.mask, TABLE))
        confusion.update(plain_probabilities(student, read_image(pair.image)).argmax(0), target)
    return confusion.compute()


def same(metrics: Metrics, expected: Metrics) -> None:
    """A rare tie may fall to another class, a lost or repeated image may not hide in it."""
    assert metrics.miou == pytest.approx(expected.miou, abs=2e-4)
    assert metrics.iou == pytest.approx(expected.iou, abs=2e-4)
    assert metrics.pixel_accuracy == pytest.approx(expected.pixel_accuracy, abs=2e-4)


@pytest.mark.parametrize("batch_pixels", [1, 2 * 33 * 47, 2**18])
def test_equal_to_the_plain_loop(
    student: Student, batch_pixels: int, write_pairs: WritePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "BATCH_PIXELS", batch_pixels)
    pairs = write_pairs(MIXED)
    same(Validator(student, pairs, TABLE, CLASSES, "cpu")(student.network), plain_metrics(student, pairs))


def test_more_images_than_are_read_ahead(student: Student, write_pairs: WritePairs) -> None:
    pairs = write_pairs([(9 + i % 3, 8) for i in range(3 * validate.READ_AHEAD + 1)])
    same(Validator(student, pairs, TABLE, CLASSES, "cpu")(student.network), plain_metrics(student, pairs))


def test_every_pixel_counts_once(student: Student, write_pairs: WritePairs) -> None:
    pairs = write_pairs(MIXED)
    counts = Validator(student, pairs, TABLE, CLASSES, "cpu").counts(student.network).counts
    known = [int((read_mask(pair.mask, TABLE) != IGNORE_INDEX).sum()) for pair in pairs]
    assert counts[:, 1].sum(1).tolist() == counts[:, 2].sum(1).tolist() == known


def test_mask_table_is_applied(student: Student, write_pairs: WritePairs) -> None:
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[2] = 1
    metrics = Validator(student, write_pairs([(40, 40)]), table, CLASSES, "cpu")(student.network)
    assert metrics.mean_accuracy == metrics.pixel_accuracy  # only class 1 is left in the targets


def test_training_mode_is_kept(student: Student, write_pairs: WritePairs) -> None:
    network = student.network.train()
    network[1].eval()  # a frozen BatchNorm
    before = [module.training for module in network.modules()]
    first = Validator(student, write_pairs([(40, 40)] * 2), TABLE, CLASSES, "cpu")(network)
    assert [module.training for module in network.modules()] == before
    assert first == Validator(student, write_pairs([(40, 40)] * 2), TABLE, CLASSES, "cpu")(network)


def test_training_mode_is_kept_when_the_network_fails() -> None:
    student = from_module(nn.Sequential(nn.Conv2d(4, CLASSES, 1)))
    with pytest.raises(RuntimeError):
        predict(student.network, student, np.zeros((4, 4, 3), np.uint8))
    assert all(module.training for module in student.network.modules())


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 32)])
def test_predict(student: Student, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    label, confidence = predict(student.network, student, image)
    probabilities = plain_probabilities(student, image)
    assert (label.dtype, confidence.dtype) == (np.uint8, np.float32)
    assert label.shape == confidence.shape == size
    np.testing.assert_allclose(confidence, probabilities.amax(0), rtol=1e-5)
    chosen = probabilities.gather(0, torch.tensor(label).long()[None])[0]
    np.testing.assert_allclose(chosen, confidence, rtol=1e-5)


def test_built_student_predicts_like_the_bare_network() -> None:
    """The logits' grid of a network by name is read as its own upsampling would read it."""
    import segmentation_models_pytorch as smp

    student = build_student(ModelConfig(arch="DeepLabV3Plus", encoder="tu-test_resnet"), CLASSES)
    bare = smp.create_model("DeepLabV3Plus", "tu-test_resnet", encoder_weights=None, classes=CLASSES)
    bare.load_state_dict(student.network.state_dict())
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    _, confidence = predict(student.network, student, image)
    inputs = (torch.tensor(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = bare.eval()(inputs).softmax(1).amax(1)[0]
    np.testing.assert_allclose(confidence, expected, rtol=1e-4)


def test_images_that_cannot_be_measured(student: Student, write_pairs: WritePairs) -> None:
    small, large = write_pairs([(8, 8), (9, 8)])
    for pair, words in (
        (Pair(small.image, None), "needs a mask"),
        (Pair(small.image, large.mask), "1-mask.png"),
        (Pair(small.image.with_name("gone.png"), small.mask), "gone.png"),
    ):
        with pytest.raises(UserError, match=words):
            Validator(student, [small, pair], TABLE, CLASSES, "cpu")(student.network)
