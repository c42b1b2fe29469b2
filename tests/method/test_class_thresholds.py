"""Thresholds by class, against their formula worked out pixel by pixel."""

import pytest
import torch

from maskmatch.batch import IGNORE_INDEX
from maskmatch.config import MethodConfig
from maskmatch.method import MaskMatch, Teacher
from maskmatch.method.class_thresholds import DECAY, ClassThresholds

CLASSES = 4
TAU = 0.9


def draw(seed, images=2):
    """Pseudo-labels of three of four classes, with padding."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES - 1, (images, 16, 20), generator=generator).to(torch.uint8)
    confidence = 0.5 + 0.5 * torch.rand(label.shape, generator=generator) * (1 - 0.2 * label)
    label[:, 14:] = IGNORE_INDEX
    return label, confidence


def expected_means(steps):
    means = [1 / CLASSES] * CLASSES
    for label, confidence in steps:
        for c in range(CLASSES):
            if (label == c).any():
                means[c] = DECAY * means[c] + (1 - DECAY) * confidence[label == c].double().mean().item()
    return means


def test_thresholds_follow_the_confidence_of_each_class():
    thresholds = ClassThresholds()
    steps = [draw(seed) for seed in range(200)]
    for label, confidence in steps:
        thresholds.relative(label, confidence, CLASSES)
        thresholds.update()
    means = expected_means(steps)
    assert thresholds.mean.tolist() == pytest.approx(means, abs=2e-5)  # confidences are added up in steps of 2**-16
    assert means[0] > means[1] > means[2] > means[3] == 1 / CLASSES

    label, confidence = draw(1000)
    passes = thresholds.relative(label, confidence, CLASSES) >= TAU
    for c in range(CLASSES - 1):
        own = confidence[label == c] >= TAU * means[c] / max(means)
        assert 0 < own.sum() < own.numel()
        assert (passes[label == c] == own).float().mean() > 0.999


def test_the_split_of_a_step_changes_nothing():
    whole, parts = ClassThresholds(), ClassThresholds()
    label, confidence = draw(0, images=4)
    whole.relative(label, confidence, CLASSES)
    for image in range(4):
        parts.relative(label[image : image + 1], confidence[image : image + 1], CLASSES)
    whole.update()
    parts.update()
    assert torch.equal(whole.mean, parts.mean)
    # Of two processes, each with half of the sums.
    label, confidence = draw(1, images=4)
    whole.relative(label, confidence, CLASSES)
    parts.relative(label[:2], confidence[:2], CLASSES)
    other = ClassThresholds()
    other.relative(label[2:], confidence[2:], CLASSES)
    whole.update()
    parts.update(lambda totals: totals + other.totals)
    assert torch.equal(whole.mean, parts.mean)


def test_a_confidence_that_is_nan_passes_nothing_and_does_not_stay():
    thresholds = ClassThresholds()
    label, confidence = draw(0)
    confidence[0, 0, 0] = torch.nan
    assert not thresholds.relative(label, confidence, CLASSES)[0, 0, 0] >= 0
    thresholds.update()
    assert thresholds.mean.tolist() == pytest.approx(expected_means([(label, confidence.nan_to_num())]), abs=2e-5)


def test_they_go_on_from_their_state():
    thresholds, resumed = ClassThresholds(), ClassThresholds()
    thresholds.relative(*draw(0), CLASSES)
    thresholds.update()
    resumed.load_state_dict(thresholds.state_dict())
    for each in (thresholds, resumed):
        each.relative(*draw(1), CLASSES)
        each.update()
    assert torch.equal(thresholds.mean, resumed.mean)


def test_a_step_moves_them(network, batch):
    config = MethodConfig(class_thresholds=True, warmup_steps=0, ramp_steps=0, scales=[1.0])
    method = MaskMatch(config, size_multiple=4)
    teacher = Teacher(network, 0.9)
    method(network, teacher, batch, 0)
    pseudo = MaskMatch(MethodConfig(class_thresholds=False, scales=[1.0]), size_multiple=4).pseudo_labels(
        teacher, batch
    )
    means = expected_means([(pseudo.label, pseudo.confidence)])
    assert method.class_thresholds.mean.tolist() == pytest.approx(means, abs=2e-5)
