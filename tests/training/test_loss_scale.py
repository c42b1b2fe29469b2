"""The scale of fp16's loss against torch.amp.GradScaler's."""

import pytest
import torch
from torch import nn

from maskmatch.training.loss_scale import LossScale

GROWTH_INTERVAL = 2000  # GradScaler's default


class Scaled:
    """A weight that is trained with a scale of ours and one with GradScaler, on a CPU."""

    def __init__(self):
        self.ours, self.theirs = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.optimizers = [torch.optim.SGD([weight], lr=0.01, fused=True) for weight in (self.ours, self.theirs)]
        self.scale = LossScale(self.optimizers[0], torch.device("cpu"), enabled=True)
        self.scaler = torch.amp.GradScaler("cpu")

    def step(self, infinite=False):
        factor = torch.tensor(torch.inf if infinite else 2.0)
        for weight, scaled in ((self.ours, self.scale), (self.theirs, self.scaler.scale)):
            weight.grad = None
            scaled((weight * factor).sum()).backward()
        found_inf = torch.tensor(float(infinite))
        self.optimizers[0].found_inf = found_inf
        self.optimizers[0].step()
        self.scale.update(found_inf)
        self.scaler.step(self.optimizers[1])
        self.scaler.update()


def same(training):
    theirs = training.scaler.state_dict()
    ours = training.scale.state_dict()
    return ours == {name: theirs[name] for name in ours} and torch.equal(training.ours, training.theirs)


def test_it_follows_gradscaler():
    training = Scaled()
    for infinite in (False, True, False, False, True, True, False):
        training.step(infinite)
        assert same(training)
    assert training.scale.value == 2.0**13


@pytest.mark.parametrize("steps_left", [1, 2])
def test_it_goes_on_from_gradscalers_state(steps_left):
    """As a checkpoint of before has it; the scale doubles when the steps without an infinity are enough."""
    training = Scaled()
    training.step()
    state = training.scaler.state_dict() | {"scale": 8.0, "_growth_tracker": GROWTH_INTERVAL - steps_left}
    training.scaler.load_state_dict(state)
    training.scale.load_state_dict(state)
    for _ in range(2):
        training.step()
        assert same(training)
    assert training.scale.value == 16.0


def test_without_fp16_nothing_is_scaled():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, fused=True)
    scale, loss = LossScale(optimizer, torch.device("cpu"), enabled=False), torch.tensor(3.0)
    scale.update(torch.tensor(1.0))
    scale.load_state_dict({})
    assert scale(loss) is loss and scale.state_dict() == {} and not hasattr(optimizer, "grad_scale")
