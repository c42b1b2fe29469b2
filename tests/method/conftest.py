"""A network small enough to check by hand, and a batch for it."""

import pytest
import torch
from torch import nn

from maskmatch.common.batch import IGNORE_INDEX, Batch

CLASSES = 4


class TinyNetwork(nn.Module):
    """Logits at stride 4, with BatchNorm, so that its statistics can be watched."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, images):
        return self.head(torch.relu(self.norm(self.encoder(images))))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TinyNetwork()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)

    def images():
        return torch.randint(0, 256, (4, 3, 32, 40), generator=generator, dtype=torch.uint8)

    target = torch.randint(0, CLASSES, (4, 32, 40), generator=generator).to(torch.uint8)
    target[:, :3] = IGNORE_INDEX
    valid = torch.ones(4, 32, 40, dtype=torch.bool)
    valid[0, 30:] = False
    seeds = torch.randint(0, 2**62, (4,), generator=generator)
    return Batch(images(), target, images(), images(), valid, seeds)
