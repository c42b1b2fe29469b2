"""The mean teacher (Tarvainen and Valpola, 2017): an exponential moving average of the student."""

from __future__ import annotations

import copy
from itertools import chain, compress

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
        self._followed: tuple[object, ...] = ()
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits of `images`."""
        logits: Tensor = self.network(images)
        return logits

    def update(self, student: nn.Module, step: int) -> None:
        """Follow the student after optimizer step `step`, counted from 0."""
        device = next(self.network.parameters()).device
        self.follow(student, torch.full((), self.weight(step), device=device))

    def weight(self, step: int) -> float:
        """The share of the student that the teacher takes over after optimizer step `step`."""
        return 1 - min(1 - 1 / (step + 1), self.momentum)

    @torch.no_grad()
    def follow(self, student: nn.Module, weight: Tensor) -> None:
        """Take over a share of the student: `weight`, a float32 scalar on the device.

        The tensors of a student are looked up once, as that takes longer than the update: when it first comes, and when
        its first parameter or buffer is another tensor than before, as after `load_state_dict(assign=True)` or a move.
        To replace single layers, make a new teacher.
        """
        followed = (student, next(student.parameters(), None), next(student.buffers(), None))
        if len(self._followed) != 3 or any(a is not b for a, b in zip(followed, self._followed, strict=True)):
            self._followed, self._pairs = followed, _pairs(self.network, student)
        (mine, theirs), (my_counts, their_counts) = self._pairs
        _move(mine, theirs, weight)
        if my_counts:  # BatchNorm's num_batches_tracked: an average of counts means nothing
            torch._foreach_copy_(my_counts, their_counts)


def _move(mine: list[Tensor], theirs: list[Tensor], weight: Tensor) -> None:
    """mine += weight * (theirs - mine), `weight` a scalar."""
    if not weight.is_cuda:
        torch._foreach_lerp_(mine, theirs, [weight] * len(mine))
    else:  # in a few kernels, where that would be one for each tensor
        way = torch._foreach_sub(theirs, mine)
        torch._foreach_mul_(way, weight)
        torch._foreach_add_(mine, way)


def _pairs(teacher: nn.Module, student: nn.Module) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The tensors of both: those of floating point, then the integers."""
    mine, theirs = (list(chain(network.parameters(), network.buffers())) for network in (teacher, student))
    floating = [tensor.is_floating_point() for tensor in mine]
    integer = [not of_floats for of_floats in floating]
    return [(list(compress(mine, kind)), list(compress(theirs, kind))) for kind in (floating, integer)]
