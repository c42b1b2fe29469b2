"""Steps whose loss or gradient is not finite are skipped, without the host waiting to know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from maskmatch.training.loss_scale import LossScale


class NonFiniteGuard:
    """Takes an optimizer's steps, except where they would put a NaN or an infinity into the network.

    Such a step leaves weights, optimizer and the statistics of BatchNorm as they were before it. All of this is decided
    on the device; `skipped` and `in_a_row` count there.

    Args:
        parameters: the optimizer's.
        optimizer: one of torch's fused ones, which can skip a step on the device's word.
        statistics: what the forward passes of a step change besides: the buffers, as `in_one_memory` gives them.
        loss_scale: by which the gradients are too large.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizer: Optimizer,
        statistics: Sequence[Tensor],
        loss_scale: LossScale,
    ) -> None:
        self.parameters, self.optimizer, self.statistics = parameters, optimizer, statistics
        self.loss_scale = loss_scale
        device = self.parameters[0].device
        self.skipped = torch.zeros((), device=device)  # steps so far
        self.in_a_row = torch.zeros((), device=device)  # of them up to now without a good one between
        self._no_scale = torch.ones((), device=device)
        self._kept = [statistics.clone() for statistics in self.statistics]
        if isinstance(optimizer, SGD):  # a skipped first step would leave its momentum uninitialised
            for parameter in self.parameters:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))

    def remember(self) -> None:
        """Call it before the forward passes of a step."""
        for kept, statistics in zip(self._kept, self.statistics, strict=True):
            kept.copy_(statistics)

    @torch.no_grad()
    def step(self, loss: Tensor) -> Tensor:
        """Take the optimizer's step unless `loss` or a gradient is not finite; bool scalar, whether it was taken."""
        found_inf = self.found_inf(loss)
        good = found_inf == 0
        self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        self.optimizer.step()
        self.loss_scale.update(found_inf)
        for kept, statistics in zip(self._kept, self.statistics, strict=True):
            torch.where(good, statistics, kept, out=statistics)
        self.skipped += found_inf
        self.in_a_row.add_(1).mul_(found_inf)
        return good

    def found_inf(self, loss: Tensor) -> Tensor:
        """1 where the loss or a gradient is not finite, else 0; float32 scalar."""
        found_inf = torch.zeros((), device=loss.device)
        # GradScaler's own check, which would also divide by a scale.
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        torch._amp_foreach_non_finite_check_and_unscale_([*gradients, loss], found_inf, self._no_scale)
        return found_inf

    def state_dict(self) -> dict[str, Tensor]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.skipped.copy_(state["skipped"])
        self.in_a_row.copy_(state["in_a_row"])


def in_one_memory(network: nn.Module) -> list[Tensor]:
    """Move a network's floating-point buffers into one memory for each of their dtypes; returns these memories.

    The buffers become views of them, so that one operation reaches them all. Call it once the network is on its device.
    """
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    memories = []
    for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):
        alike = [buffer for buffer in buffers if buffer.dtype == dtype]
        memories.append(torch.cat([buffer.flatten() for buffer in alike]))
        for buffer, part in zip(alike, memories[-1].split([buffer.numel() for buffer in alike]), strict=True):
            buffer.data = part.view_as(buffer)
    return memories
