"""fp16 loses small gradients unless the loss is scaled up (Micikevicius et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

START, GROWTH, BACKOFF, GROWTH_INTERVAL = 2.0**16, 2.0, 0.5, 2000  # as torch.amp.GradScaler has them


class LossScale:
    """A factor that halves at an infinity and doubles after enough steps without one; on the device.

    It is torch.amp.GradScaler but for who says that a step went wrong: here whoever calls `update`, who may have seen
    an infinite loss, too. The optimizer, one of torch's fused ones, divides the gradients itself.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled
        if enabled:
            self.value = torch.full((), START, device=device)
            self._good_steps = torch.zeros((), dtype=torch.int32, device=device)
            optimizer.grad_scale = self.value  # type: ignore[attr-defined]

    def __call__(self, loss: Tensor) -> Tensor:
        """What to call backward on."""
        return loss * self.value if self.enabled else loss

    def update(self, found_inf: Tensor) -> None:
        """After a step; `found_inf` is float32, 1 where it went wrong, else 0."""
        if self.enabled:
            torch._amp_update_scale_(self.value, self._good_steps, found_inf, GROWTH, BACKOFF, GROWTH_INTERVAL)

    def state_dict(self) -> dict[str, float]:
        """Under GradScaler's names; waits for the device."""
        return {"scale": self.value.item(), "_growth_tracker": int(self._good_steps)} if self.enabled else {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Of this class, or of GradScaler."""
        if self.enabled:
            self.value.fill_(state["scale"])
            self._good_steps.fill_(state["_growth_tracker"])
