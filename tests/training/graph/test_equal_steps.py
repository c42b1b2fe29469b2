"""Every step of a kind is the same operators on the same memory with the same numbers: one can stand for all."""

import itertools
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from torch import no_grad

from maskmatch.method import MaskMatch, Teacher
from maskmatch.method.class_balance import ClassBalance
from maskmatch.ops import use_backend
from tests.training.graph.operators import Operators, differences, reads
from tests.training.graph.steps import OPTIONS, STAGES, Batches, make_step


def records(stage, *, logged=False, **options):
    """Of two steps of a stage, not the first, which makes what is made once."""
    step = make_step(**options)
    batches = Batches(step.config.accumulate, truth=logged)
    first = STAGES[stage][0]
    found = {first + 1: Operators(), first + 2: Operators()}
    for number in range(first + 3):
        step.set_numbers(number)
        with found.get(number) or nullcontext():
            step.take(batches.draw(), number, step.compared(number) if logged else None)
    return list(found.values())


def assert_equal_steps(one, other):
    assert len(one.calls) > 50
    assert reads(other) == []
    assert differences(one, other) == []


@pytest.fixture(autouse=True)
def _labels_unchecked():
    """On a CPU the loss looks at its labels, there alone."""
    with mock.patch("maskmatch.ops._upsample_cross_entropy.check_labels"):
        yield


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(options, stage):
    assert_equal_steps(*records(stage, **options))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("options", ["default", "accumulation", "reconstruction", "joint branches"])
def test_logged_steps(options, stage):
    assert_equal_steps(*records(stage, logged=True, **OPTIONS[options]))


@pytest.mark.parametrize("options", ["default", "OHEM, class weights", "visible region, blocks"])
def test_plain_operators(options):
    with use_backend("reference"):
        assert_equal_steps(*records("full", **OPTIONS[options]))


COUNT = itertools.count(2)


def follow_by_a_number(self, student, weight):
    mine, theirs = (list(network.parameters()) for network in (self.network, student))
    torch._foreach_lerp_(mine, theirs, 1 / next(COUNT))


def update_in_other_memory(self, total):
    self.labeled = self.labeled + 1


def loss_and(change):
    loss = MaskMatch.loss
    return mock.patch.object(MaskMatch, "loss", lambda self, logits, *rest: change(loss(self, logits, *rest)))


FAULTS = {
    "a number that changes": (lambda: mock.patch.object(Teacher, "follow", no_grad()(follow_by_a_number)), "lerp"),
    "a value that is read": (lambda: loss_and(lambda loss: loss * float(loss.detach() > -1)), "_local_scalar_dense"),
    "a value that is brought": (lambda: loss_and(lambda loss: loss * torch.tensor(1.0)), "lift_fresh"),
    "memory that is replaced": (lambda: mock.patch.object(ClassBalance, "update", update_in_other_memory), "old"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault):
    planted, said = FAULTS[fault]
    with planted():
        one, other = records("full", logit_adjustment=0.5)
    assert any(said in line for line in reads(other) + differences(one, other))
