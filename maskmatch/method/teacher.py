"""The mean teacher (Tarvainen and Valpola, 2017): an exponential moving average of the student."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn


class Teacher:
    """A copy of the student that follows it and is never trained itself.

    Args:
        student: the network to follow; copied, not kept.
        momentum: share of the teacher that an update keeps, at most; early updates keep less, as
            min(1 - 1 / (step + 1), momentum), so that the random start is forgotten.
    """

    def __init__(self, student: nn.Module, momentum: float) -> None:
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits of `images`."""
        logits: Tensor = self.network(images)
        return logits

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Follow the student after optimizer step `step`, counted from 0."""
        mine, theirs = _tensors(self.network), _tensors(student)
        floating = [i for i, tensor in enumerate(mine) if tensor.is_floating_point()]
        integers = [i for i, tensor in enumerate(mine) if not tensor.is_floating_point()]
        weight = 1 - min(1 - 1 / (step + 1), self.momentum)
        torch._foreach_lerp_([mine[i] for i in floating], [theirs[i] for i in floating], weight)
        if integers:  # BatchNorm's num_batches_tracked: an average of counts means nothing
            torch._foreach_copy_([mine[i] for i in integers], [theirs[i] for i in integers])


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(chain(network.parameters(), network.buffers()))
