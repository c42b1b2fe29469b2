"""One process of a distributed run: a small network in float64, whose numbers do not depend on how images are batched.

Started by torchrun or alone: `process.py OUTPUT [--fail-rank R] OPTIONS...`, with the options of maskmatch.train.
"""

import os
import sys

import torch
from torch import nn

from maskmatch.commands.command_line import parse_train, run
from maskmatch.common.signals import StopSignal
from maskmatch.models import from_module
from maskmatch.training import train


class Network(nn.Module):
    """GroupNorm keeps no statistics of the batch. One parameter takes no part, as in some encoders of timm."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Conv2d(8, 6, 1)
        nn.init.normal_(self.head.weight)  # some pixels are confident from the start, some are not
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        return self.head(self.layers(images.double()))


class FailingNetwork(Network):
    def __init__(self):
        super().__init__()
        self.forwards = 0

    def forward(self, images):
        self.forwards += self.training
        if self.forwards > 5:
            raise ArithmeticError("this process was made to fail")
        return super().forward(images)


def main(argv):
    network = Network
    if argv[0] == "--fail-rank":
        if os.environ.get("RANK") == argv[1]:
            network = FailingNetwork
        argv = argv[2:]
    torch.manual_seed(0)
    student = from_module(network().double(), size_multiple=4)
    with StopSignal() as stop:
        train(parse_train(argv), student, stop)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
