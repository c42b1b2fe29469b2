"""`upsample_cross_entropy` in a plain PyTorch loop: a tiny network, a few steps on random images.

    python examples/loss_in_pytorch.py [STEPS]

docs/own-trainer.md shows what stood there before.
"""

import sys

import torch
from torch import nn

from maskmatch.ops import upsample_cross_entropy


def main(steps: int = 3) -> nn.Module:
    torch.manual_seed(0)
    classes = 21
    network = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.ReLU(), nn.Conv2d(32, classes, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(steps):
        images, target = torch.randn(2, 3, 64, 64), torch.randint(classes, (2, 64, 64))
        target[:, :8] = 255  # not labelled
        logits = network(images)
        loss = upsample_cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.4f}")
    return network


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
