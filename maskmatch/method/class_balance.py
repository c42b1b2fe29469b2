"""What keeps classes from being lost: rare ones are named more often, uncertain ones need less confidence.

    logits_c - alpha log pi_c     before labels are taken from them; pi_c is the share of c among the labelled pixels
    tau_c = tau * m_c / max m     m_c is the running mean of the confidence of the pixels that are labelled c

The first is the logit adjustment of Menon et al. (2021), for the teacher's labels alone. The second is FreeMatch's idea
(Wang et al., 2023), whose m_c is the mean probability of class c over all pixels, and whose tau moves as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from maskmatch.common.counting import count_each
from maskmatch.config import MethodConfig

DECAY = 0.99
UNIT = 2**16  # confidences are added up as integers: in any order the sum is the same


class ClassBalance:
    """Follows the classes of the labels and how sure the teacher is of each.

    Args:
        config: `logit_adjustment`, alpha, and `class_thresholds`; without both nothing is changed or followed.
    """

    def __init__(self, config: MethodConfig) -> None:
        self.alpha = config.logit_adjustment
        self.thresholds = config.class_thresholds
        self.labeled = torch.empty(0)  # int64 [C], labelled pixels of each class so far
        self.confidence = torch.empty(0)  # float32 [C], m
        # Seen since the last update: labelled pixels, pixels of the teacher's labels, and the sum of their confidence.
        self.totals = torch.empty(0)  # int64 [3, C + 1], IGNORE_INDEX last

    def _start(self, num_classes: int, device: torch.device) -> None:
        """Have what is followed on the device; its number of classes, C, is that of the first logits."""
        if not self.confidence.numel():
            self.labeled = torch.zeros(num_classes, dtype=torch.int64)
            self.confidence = torch.full((num_classes,), 1 / num_classes)
        if not self.totals.numel():
            self.labeled, self.confidence = self.labeled.to(device), self.confidence.to(device)
            self.totals = torch.zeros(3, num_classes + 1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def adjusted(self, logits: Sequence[Tensor], target: Tensor) -> Sequence[Tensor]:
        """The teacher's logits [M, C, h, w] with rare classes raised, from the next `update` on by `target` too.

        `target` is the masks of the labelled images, uint8 [N, H, W].
        """
        num_classes = logits[0].shape[1]
        self._start(num_classes, target.device)
        if not self.alpha:
            return logits
        self.totals[0] += count_each(_index(target, num_classes), num_classes + 1)
        # One pixel more of each class, so that none has share 0, and all are alike as long as none was seen.
        seen = self.labeled + 1
        bias = -self.alpha * (seen / seen.sum()).log()
        return [scale + bias.to(scale.dtype)[:, None, None] for scale in logits]

    @torch.no_grad()
    def relative(self, label: Tensor, confidence: Tensor, num_classes: int) -> Tensor:
        """Confidences that pass tau where the given ones pass tau_c.

        What is seen here moves the thresholds at the next `update`.

        Args:
            label: uint8 [M, H, W], IGNORE_INDEX on padding.
            confidence: float32 [M, H, W].
            num_classes: C.
        """
        self._start(num_classes, label.device)
        if not self.thresholds:
            return confidence
        index = _index(label, num_classes)
        # A NaN counts as no confidence: as an integer it would be anything, and stay in the mean for ever.
        self.totals[1] += count_each(index, num_classes + 1)
        self.totals[2] += count_each(index, num_classes + 1, (confidence.nan_to_num() * UNIT).long())
        factor = torch.cat([self.confidence.max() / self.confidence, self.confidence.new_zeros(1)])
        # On a CPU indexing, factor[index], is slower.
        return (confidence * factor.index_select(0, index.flatten()).view_as(confidence)).clamp_(max=1)

    @torch.no_grad()
    def update(self, total: Callable[[Tensor], Tensor] = lambda totals: totals) -> None:
        """Follow what was seen since the last time; `total` adds up the processes' sums, int64 [3, C + 1]."""
        if not (self.alpha or self.thresholds):
            return
        labeled, pixels, confidence = total(self.totals)[:, :-1].unbind()
        self.labeled += labeled
        seen = (confidence.double() / UNIT / pixels.clamp(min=1)).float()
        self.confidence.copy_(torch.where(pixels > 0, self.confidence.lerp(seen, 1 - DECAY), self.confidence))
        self.totals.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        return {"labeled": self.labeled, "confidence": self.confidence}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.labeled, self.confidence = state["labeled"].clone(), state["confidence"].clone()
        self.totals = torch.empty(0)  # so that the next labels bring all of it to their device


def _index(label: Tensor, num_classes: int) -> Tensor:
    """The column of each pixel, int64 like `label`."""
    return label.long().clamp_(max=num_classes)
