"""Steps whose loss or gradient is not finite are skipped, without the host waiting to know."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer


class NonFiniteGuard:
    """Takes an optimizer's steps, except where they would put a NaN or an infinity into the network.

    Such a step leaves weights, optimizer and the statistics of BatchNorm as they were before it. All of this is decided
    on the device; `skipped` and `in_a_row` count there.

    Args:
        network: whose parameters the optimizer has; its buffers are moved into one memory, `statistics`.
        optimizer: one of torch's fused ones, which can skip a step on the device's word.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        device = self.parameters[0].device
        self.skipped = torch.zeros((), device=device)  # steps so far
        self.in_a_row = torch.zeros((), device=device)  # of them up to now without a good one between
        self._no_scale = torch.ones((), device=device)
        self.statistics = _together([buffer for buffer in network.buffers() if buffer.is_floating_point()])
        self._kept = [statistics.clone() for statistics in self.statistics]
        if isinstance(optimizer, SGD):  # a skipped first step would leave its momentum uninitialised
            for parameter in self.parameters:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))

    def remember(self) -> None:
        """Call it before the forward passes of a step."""
        for kept, statistics in zip(self._kept, self.statistics, strict=True):
            kept.copy_(statistics)

    @torch.no_grad()
    def step(self, loss: Tensor, scaler: torch.amp.GradScaler) -> Tensor:
        """Take the optimizer's step unless `loss` or a gradient is not finite; bool scalar, whether it was taken.

        `scaler` is that of fp16's gradients, disabled for other precisions.
        """
        found_inf = self.found_inf(loss)
        good = found_inf == 0
        if scaler.is_enabled():  # it looks at the gradients alone
            next(self._gradients()).add_(torch.where(good, 0.0, torch.nan))
        else:
            self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        scaler.step(self.optimizer)
        scaler.update()
        for kept, statistics in zip(self._kept, self.statistics, strict=True):
            torch.where(good, statistics, kept, out=statistics)
        self.skipped += found_inf
        self.in_a_row.add_(1).mul_(found_inf)
        return good

    def found_inf(self, loss: Tensor) -> Tensor:
        """1 where the loss or a gradient is not finite, else 0; float32 scalar."""
        found_inf = torch.zeros((), device=loss.device)
        # GradScaler's own check, which would also divide by a scale.
        torch._amp_foreach_non_finite_check_and_unscale_([*self._gradients(), loss], found_inf, self._no_scale)
        return found_inf

    def _gradients(self) -> Iterator[Tensor]:
        return (parameter.grad for parameter in self.parameters if parameter.grad is not None)

    def state_dict(self) -> dict[str, Tensor]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.skipped.copy_(state["skipped"])
        self.in_a_row.copy_(state["in_a_row"])


def _together(buffers: list[Tensor]) -> list[Tensor]:
    """Move buffers into one memory for each of their dtypes, so that one operation reaches them all."""
    memories = []
    for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):
        alike = [buffer for buffer in buffers if buffer.dtype == dtype]
        memories.append(torch.cat([buffer.flatten() for buffer in alike]))
        for buffer, part in zip(alike, memories[-1].split([buffer.numel() for buffer in alike]), strict=True):
            buffer.data = part.view_as(buffer)
    return memories
