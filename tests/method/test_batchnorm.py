"""Which forwards BatchNorm records and counts."""

import copy

import pytest
import torch
from torch import nn

from maskmatch.method.batchnorm import running_statistics

NORMS = {
    "BatchNorm": {},
    "cumulative": {"momentum": None},
    "without statistics": {"track_running_stats": False},
    "SyncBatchNorm": {},
}


@pytest.mark.parametrize("update", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_a_forward(kind, update):
    torch.manual_seed(0)
    make = nn.SyncBatchNorm if kind == "SyncBatchNorm" else nn.BatchNorm2d
    network = nn.Sequential(make(3, **NORMS[kind]), make(3, **NORMS[kind]).eval())
    plain = copy.deepcopy(network)
    images = torch.randn(4, 3, 5, 5)
    for _ in range(3):
        with running_statistics(network, update=update):
            answer = network(images)
        assert torch.equal(answer, plain(images))
    expected = plain if update else nn.Sequential(*(make(3, **NORMS[kind]) for _ in range(2)))
    assert network.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in network.state_dict().items())
    assert network[0].momentum == plain[0].momentum
