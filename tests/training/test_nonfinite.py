"""A step with a NaN in its loss or gradient leaves no trace; whole runs of such steps end with an explanation."""

import copy

import pytest
import torch
from torch import nn

from maskmatch.config import TrainConfig
from maskmatch.training.loss_scale import LossScale
from maskmatch.training.nonfinite import NonFiniteGuard, in_one_memory
from maskmatch.training.schedules import make_optimizer


class Training:
    """A network with BatchNorm, and what trains it."""

    def __init__(self, optimizer, guarded=True):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        self.optimizer = make_optimizer(self.network, TrainConfig(optimizer=optimizer, lr=0.01))
        self.guard = None
        if guarded:
            scale = LossScale(self.optimizer, torch.device("cpu"), enabled=False)
            parameters = list(self.network.parameters())
            self.guard = NonFiniteGuard(parameters, self.optimizer, in_one_memory(self.network), scale)

    def step(self, images, poison=None):
        if self.guard:
            self.guard.remember()
        loss = self.network(images).square().mean()
        loss.backward()
        if poison == "gradient":
            self.network[2].weight.grad[0, 0] = torch.inf
        if poison == "loss":
            loss = loss * torch.nan
        if self.guard:
            self.guard.step(loss.detach())
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()

    def everything(self):
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return copy.deepcopy([*self.network.state_dict().values(), *states])


def batch(seed):
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_good_steps_are_those_of_the_bare_optimizer(optimizer):
    guarded, bare = Training(optimizer), Training(optimizer, guarded=False)
    for seed in range(3):
        guarded.step(batch(seed))
        bare.step(batch(seed))
    assert same(guarded.everything(), bare.everything())
    assert guarded.guard.skipped == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("poison", ["image", "gradient", "loss"])
def test_a_bad_step_leaves_no_trace(optimizer, poison):
    """Also as the very first one."""
    guarded, bare = Training(optimizer), Training(optimizer, guarded=False)
    for seed in (None, 0, None, None, 1, 2, None):
        if seed is None:
            images = batch(9) * torch.nan if poison == "image" else batch(9)
            guarded.step(images, poison)
        else:
            guarded.step(batch(seed))
            bare.step(batch(seed))
    for network in (guarded.network, bare.network):  # it has seen more batches, which nothing depends on
        network[1].num_batches_tracked.zero_()
    assert same(guarded.everything(), bare.everything())
    assert (guarded.guard.skipped, guarded.guard.in_a_row) == (4, 1)


def test_the_counts_survive_a_checkpoint():
    one, other = Training("sgd"), Training("sgd")
    one.step(batch(0), "gradient")
    other.guard.load_state_dict(one.guard.state_dict())
    other.step(batch(0), "gradient")
    assert (other.guard.skipped, other.guard.in_a_row) == (2, 2)
