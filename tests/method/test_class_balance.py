"""Logit adjustment and thresholds by class, against their formulas worked out pixel by pixel."""

import pytest
import torch

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.config import MethodConfig
from maskmatch.method import MaskMatch, Teacher
from maskmatch.method.class_balance import DECAY, ClassBalance

CLASSES = 4
TAU = 0.9
THRESHOLDS = MethodConfig(class_thresholds=True, logit_adjustment=0.0)
ADJUSTMENT = MethodConfig(class_thresholds=False, logit_adjustment=0.5)


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
    thresholds = ClassBalance(THRESHOLDS)
    steps = [draw(seed) for seed in range(200)]
    for label, confidence in steps:
        thresholds.relative(label, confidence, CLASSES)
        thresholds.update()
    means = expected_means(steps)
    # Confidences are added up in steps of 2**-16.
    assert thresholds.confidence.tolist() == pytest.approx(means, abs=2e-5)
    assert means[0] > means[1] > means[2] > means[3] == 1 / CLASSES

    label, confidence = draw(1000)
    passes = thresholds.relative(label, confidence, CLASSES) >= TAU
    for c in range(CLASSES - 1):
        own = confidence[label == c] >= TAU * means[c] / max(means)
        assert 0 < own.sum() < own.numel()
        assert (passes[label == c] == own).float().mean() > 0.999


def test_the_split_of_a_step_changes_nothing():
    whole, parts = ClassBalance(THRESHOLDS), ClassBalance(THRESHOLDS)
    label, confidence = draw(0, images=4)
    whole.relative(label, confidence, CLASSES)
    for image in range(4):
        parts.relative(label[image : image + 1], confidence[image : image + 1], CLASSES)
    whole.update()
    parts.update()
    assert torch.equal(whole.confidence, parts.confidence)
    # Of two processes, each with half of the sums.
    label, confidence = draw(1, images=4)
    whole.relative(label, confidence, CLASSES)
    parts.relative(label[:2], confidence[:2], CLASSES)
    other = ClassBalance(THRESHOLDS)
    other.relative(label[2:], confidence[2:], CLASSES)
    whole.update()
    parts.update(lambda totals: totals + other.totals)
    assert torch.equal(whole.confidence, parts.confidence)


def test_a_confidence_that_is_nan_passes_nothing_and_does_not_stay():
    thresholds = ClassBalance(THRESHOLDS)
    label, confidence = draw(0)
    confidence[0, 0, 0] = torch.nan
    assert not thresholds.relative(label, confidence, CLASSES)[0, 0, 0] >= 0
    thresholds.update()
    assert thresholds.confidence.tolist() == pytest.approx(expected_means([(label, confidence.nan_to_num())]), abs=2e-5)


def test_they_go_on_from_their_state():
    thresholds, resumed = ClassBalance(THRESHOLDS), ClassBalance(THRESHOLDS)
    thresholds.relative(*draw(0), CLASSES)
    thresholds.update()
    resumed.load_state_dict(thresholds.state_dict())
    for each in (thresholds, resumed):
        each.relative(*draw(1), CLASSES)
        each.update()
    assert torch.equal(thresholds.confidence, resumed.confidence)


def masks(seed):
    """Masks of three of four classes, one of which is rare, with padding."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 16, 20, generator=generator).mul(2.2).to(torch.uint8)
    target[:, 14:] = IGNORE_INDEX
    return target


def expected_logits(logits, targets, alpha=0.5):
    """With one pixel more of each class."""
    seen = torch.tensor([1 + sum((target == c).sum().item() for target in targets) for c in range(CLASSES)])
    return logits.double() - alpha * (seen.double() / seen.sum()).log()[:, None, None]


def test_rare_classes_are_raised_by_their_share_of_the_labelled_pixels():
    balance = ClassBalance(ADJUSTMENT)
    logits = [torch.randn(2, CLASSES, 4, 5), torch.randn(2, CLASSES, 8, 10)]
    seen = [masks(seed) for seed in range(5)]
    for target in seen:
        balance.adjusted(logits, target)
        balance.update()
    for scale, raised in zip(logits, balance.adjusted(logits, masks(6)), strict=True):
        torch.testing.assert_close(raised.double(), expected_logits(scale, seen), rtol=0, atol=1e-5)
    raised = balance.adjusted([torch.zeros(1, CLASSES, 1, 1)], masks(7))[0].flatten()
    assert raised[3] > raised[2] > raised[:2].max()  # class 3 was never seen, class 2 is rare


def test_all_classes_are_alike_as_long_as_no_label_was_seen():
    (raised,) = ClassBalance(ADJUSTMENT).adjusted([torch.zeros(1, CLASSES, 2, 2)], masks(0))
    assert raised.unique().numel() == 1


def test_processes_and_micro_batches_add_up_their_labels():
    whole, parts, other = (ClassBalance(ADJUSTMENT) for _ in range(3))
    logits, target = [torch.zeros(1, CLASSES, 2, 2)], masks(0)
    whole.adjusted(logits, target)
    whole.update()
    parts.adjusted(logits, target[:1, :8])
    parts.adjusted(logits, target[:1, 8:])
    other.adjusted(logits, target[1:])
    parts.update(lambda totals: totals + other.totals)
    assert torch.equal(whole.labeled, parts.labeled)
    resumed = ClassBalance(ADJUSTMENT)
    resumed.load_state_dict(whole.state_dict())
    assert torch.equal(resumed.adjusted(logits, target)[0], parts.adjusted(logits, target)[0])


def test_without_both_nothing_is_changed():
    balance = ClassBalance(MethodConfig(class_thresholds=False, logit_adjustment=0.0))
    logits, (label, confidence) = [torch.randn(2, CLASSES, 4, 5)], draw(0)
    for _ in range(2):
        assert balance.adjusted(logits, masks(0)) is logits
        assert balance.relative(label, confidence, CLASSES) is confidence
        balance.update()


def test_a_step_moves_both(network, batch):
    config = MethodConfig(class_thresholds=True, logit_adjustment=0.5, warmup_steps=0, ramp_steps=0, scales=[1.0])
    method = MaskMatch(config, size_multiple=4)
    teacher = Teacher(network, 0.9)
    method(network, teacher, batch, 0)
    plain = MethodConfig(class_thresholds=False, logit_adjustment=0.0, scales=[1.0])
    pseudo = MaskMatch(plain, size_multiple=4).pseudo_labels(teacher, batch)
    means = expected_means([(pseudo.label, pseudo.confidence)])
    assert method.class_balance.confidence.tolist() == pytest.approx(means, abs=2e-5)
    assert method.class_balance.labeled.tolist() == [(batch.target == c).sum() for c in range(CLASSES)]
