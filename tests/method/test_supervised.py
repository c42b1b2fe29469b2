"""The supervised loss with its options, against torch.nn.CrossEntropyLoss and a mining written out."""

import pytest
import torch
import torch.nn.functional as F

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.method.supervised import SupervisedLoss

CLASSES = 4
WEIGHTS = [0.5, 2.0, 1.0, 0.0]


@pytest.fixture
def logits():
    return torch.randn(3, CLASSES, 5, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def target():
    drawn = torch.randint(0, CLASSES, (3, 20, 24), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    drawn[:, :6] = IGNORE_INDEX
    return drawn


def upsampled(logits, target):
    return F.interpolate(logits.double(), target.shape[1:], mode="bilinear", align_corners=False)


def assert_same(logits, value, expected):
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    (gradient,), (reference,) = torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_class_weights_are_those_of_torch(logits, target, weights):
    loss = SupervisedLoss(weights)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    reference = torch.nn.CrossEntropyLoss(tensor, ignore_index=IGNORE_INDEX)
    assert_same(logits, loss(logits, target, loss.divisor(target)), reference(upsampled(logits, target), target.long()))


@pytest.mark.parametrize("share", [1 / 16, 0.5])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("fully_labelled", [False, True])
def test_the_hardest_pixels(logits, target, share, weights, fully_labelled):
    if fully_labelled:
        target[target == IGNORE_INDEX] = 1
    loss = SupervisedLoss(weights, share)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    pixels = F.cross_entropy(
        upsampled(logits, target), target.long(), tensor, ignore_index=IGNORE_INDEX, reduction="none"
    )
    valid = target != IGNORE_INDEX
    kept = pixels[valid].topk(round(share * valid.sum().item())).values
    divisor = valid.sum() if tensor is None else tensor[target[valid].long()].sum()
    assert_same(logits, loss(logits, target, loss.divisor(target)), kept.sum() / (divisor * share))


def test_nothing_labelled(logits, target):
    for loss in (SupervisedLoss(WEIGHTS), SupervisedLoss(None, 0.5)):
        empty = torch.full_like(target, IGNORE_INDEX)
        value = loss(logits, empty, loss.divisor(empty).clamp(min=1))
        assert value == 0


def test_the_divisors_of_two_halves_add_up(logits, target):
    for loss in (SupervisedLoss(WEIGHTS), SupervisedLoss()):
        whole = loss(logits, target, loss.divisor(target))
        divisor = loss.divisor(target[:1]) + loss.divisor(target[1:])
        halves = loss(logits[:1], target[:1], divisor) + loss(logits[1:], target[1:], divisor)
        torch.testing.assert_close(halves, whole)
