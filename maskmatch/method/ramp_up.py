"""Which losses count at a step, how much, and at which scales the teacher looks: warm-up, ramp, full."""

from __future__ import annotations

import math
from collections.abc import Sequence

from maskmatch.config import MethodConfig


class RampUp:
    """The unlabelled losses over the steps, counted from 0: none in the warm-up, then rising linearly to all.

    Args:
        config: the method's options; those that are None count as 0 steps.
    """

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def weights(self, step: int) -> dict[str, float]:
        """The branches that count at a step, counted from 0, and their factors in the total."""
        ramp = self.factor(step)
        weights = {"loss_x": 1.0}
        if ramp and self.config.consistency:
            weights["loss_u"] = ramp * self.config.lambda_u
        if ramp and self.config.lcr:
            weights["loss_m"] = ramp * self.config.lambda_m
        if ramp and self.config.ablation.reconstruction:
            weights["loss_r"] = ramp * self.config.ablation.lambda_r
        return weights

    def factor(self, step: int) -> float:
        """Factor of the unlabelled losses: 0 in the warm-up, then rising linearly to 1."""
        config = self.config
        warmup, ramp = config.warmup_steps or 0, config.ramp_steps or 0
        unlabeled = config.consistency or config.lcr or config.ablation.reconstruction
        if step < warmup or config.supervised_only or not unlabeled:
            return 0.0
        return min(1.0, (step - warmup + 1) / ramp) if ramp else 1.0

    def scales(self, step: int) -> Sequence[float]:
        """Scales at which the teacher sees the weak view at a step: until the ramp has ended that nearest to 1 alone.

        A young network does not know things at another size yet.
        """
        scales = self.config.scales
        return scales if self.factor(step) == 1 else [min(scales, key=lambda scale: abs(math.log(scale)))]
