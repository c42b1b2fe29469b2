"""A threshold for each class, so that none starves: one that the teacher is less sure of needs less confidence.

    tau_c = tau * m_c / max m

m_c is the running mean of the confidence of the pixels labelled c. The idea is FreeMatch's (Wang et al., 2023), whose
m_c is the mean probability of class c over all pixels, and whose tau moves as well.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DECAY = 0.99
UNIT = 2**16  # confidences are added up as integers: in any order the sum is the same


class ClassThresholds:
    """How sure the teacher is of each class; their number, C, is that of the first pseudo-labels."""

    def __init__(self) -> None:
        self.mean = torch.empty(0)  # float32 [C], m
        # Seen since the last update: pixels, and the sum of their confidence.
        self.totals = torch.empty(0)  # int64 [2, C]

    @torch.no_grad()
    def relative(self, label: Tensor, confidence: Tensor, num_classes: int) -> Tensor:
        """Confidences that pass tau where the given ones pass tau_c.

        What is seen here moves the thresholds at the next `update`.

        Args:
            label: uint8 [M, H, W], IGNORE_INDEX on padding.
            confidence: float32 [M, H, W].
            num_classes: C.
        """
        if not self.mean.numel():
            self.mean = torch.full((num_classes,), 1 / num_classes)
        self.mean = self.mean.to(label.device)
        if not self.totals.numel():
            self.totals = torch.zeros(2, num_classes, dtype=torch.int64, device=label.device)
        index = label.long().clamp_(max=num_classes).flatten()  # IGNORE_INDEX goes to a bin of its own
        # A NaN counts as no confidence: as an integer it would be anything, and stay in the mean for ever.
        seen = torch.stack([torch.ones_like(index), (confidence.nan_to_num() * UNIT).long().flatten()])
        bins = torch.zeros(2, num_classes + 1, dtype=torch.int64, device=label.device)
        self.totals += bins.scatter_add_(1, index.expand(2, -1), seen)[:, :-1]
        factor = torch.cat([self.mean.max() / self.mean, self.mean.new_zeros(1)])
        # Indexing, factor[index], takes six times as long on a CPU.
        return (confidence * factor.index_select(0, index).view_as(confidence)).clamp_(max=1)

    @torch.no_grad()
    def update(self, total: Callable[[Tensor], Tensor] = lambda totals: totals) -> None:
        """Follow what was seen since the last time; `total` adds up the processes' sums, int64 [2, C]."""
        pixels, confidence = total(self.totals).double().unbind()
        seen = (confidence / UNIT / pixels.clamp(min=1)).float()
        self.mean = torch.where(pixels > 0, self.mean.lerp(seen, 1 - DECAY), self.mean)
        self.totals.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.mean = state["mean"]
