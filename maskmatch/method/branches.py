"""What a step of MaskMatch consists of: pseudo-labels, branches, and the parts that the student takes one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

BRANCHES = ("loss_x", "loss_u", "loss_m", "loss_r")
"""The branches by the names of their losses, in the order in which they run."""
COMPARABLE = ("loss_u", "loss_m")
"""Those in which the student is to give the teacher's labels."""
DIVISORS = (*BRANCHES, "coverage")
"""What is a sum over pixels divided by their number in the whole batch."""


class PseudoLabels(NamedTuple):
    """What the teacher says of the weak views."""

    label: Tensor  # uint8 [M, H, W], IGNORE_INDEX on padding
    confidence: Tensor  # float32 [M, H, W]


class Branch(NamedTuple):
    """What one branch shows the student, and what its answer is scored against."""

    images: Tensor  # float32 [N, 3, H, W], normalised
    target: Tensor  # uint8 [N, H, W]; of L_r the image itself, float32 [N, 3, H, W]
    confidence: Tensor | None  # float32 [N, H, W]; None: every pixel counts; of L_r 1 where the image is hidden
    updates_statistics: bool  # whether its forward updates the running statistics of BatchNorm
    hidden: tuple[Tensor, int] | None = None  # bool [N, rows, columns], hidden patches, and how many others there are


class Part(NamedTuple):
    """Branches of one batch that the student answers in one forward: as a rule one, with `joint` all."""

    branches: dict[str, Branch]  # by the names of their losses, in the order of BRANCHES
    weights: Mapping[str, float | Tensor]  # of these losses in the total; as tensors, scalars
    divisors: dict[str, Tensor]  # of all of DIVISORS: scalars
    batch: int  # which of the step's batches
    target: Tensor  # uint8 [N, H, W], the masks of its labelled images
    pseudo: PseudoLabels | None  # None where nothing is compared with them yet
    first: bool  # of its batch
    last: bool  # of the step

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of its losses; a scalar."""
        return summed([losses[name] * weight for name, weight in self.weights.items()])


class Losses(NamedTuple):
    """The losses of one step, scalars on the device; 0 where a branch did not run."""

    total: Tensor
    loss_x: Tensor
    loss_u: Tensor
    loss_m: Tensor
    loss_r: Tensor


def summed(scalars: list[Tensor]) -> Tensor:
    """Their sum; a scalar."""
    return scalars[0] if len(scalars) == 1 else torch.stack(scalars).sum()
