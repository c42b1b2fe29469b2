"""Gradients added up by one operator are autograd's, bit by bit."""

import copy

import torch
from torch import nn

from maskmatch.training.gradients import GradientSum


class Parts(nn.Module):
    """Three layers, of which a pass uses some."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))

    def forward(self, inputs, used):
        for index in used:
            inputs = self.layers[index](inputs).tanh()
        return inputs.square().mean()


def test_the_sum_of_several_passes():
    torch.manual_seed(0)
    network = Parts()
    plain = copy.deepcopy(network)
    gradients = GradientSum(list(network.parameters()))
    for used in [(0,), (0, 1), (1,), (1, 0, 1)]:  # some had no gradient before, some have none now
        inputs = torch.randn(7, 5)
        gradients.backward(network(inputs, used))
        plain(inputs, used).backward()
        for parameter, expected in zip(network.parameters(), plain.parameters(), strict=True):
            assert (parameter.grad is None) == (expected.grad is None)
            assert parameter.grad is None or torch.equal(parameter.grad, expected.grad)
    assert network.layers[2].weight.grad is None
