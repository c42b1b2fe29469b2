"""Mistakes that the fake device must find, put into the product by a patch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from maskmatch.common.batch import Batch
from maskmatch.data.loading.handover import Handover, Made
from maskmatch.method import MaskMatch
from maskmatch.training import distributed


def _if(logits: Tensor) -> None:
    if logits.sum() > 0:
        raise AssertionError


IN_THE_LOSS: dict[str, Callable[[Tensor], Any]] = {
    "a CPU tensor mixed in": lambda logits: logits + torch.zeros(logits.shape[-1]),
    ".item()": lambda logits: logits.sum().item(),
    "if tensor": _if,
    "nonzero": lambda logits: logits.nonzero(),
    "boolean index": lambda logits: logits[logits > 0],
    ".cpu()": lambda logits: logits.cpu(),
    "torch.tensor on the device": lambda logits: torch.tensor([1.0, 2.0], device=logits.device),
    "copy of pageable memory": lambda logits: torch.zeros(3).to(logits.device, non_blocking=True),
    "generator of the CPU": lambda logits: torch.rand(3, device=logits.device, generator=torch.Generator()),
    "torch.cuda.synchronize": lambda logits: torch.cuda.synchronize(),
    "Stream.synchronize": lambda logits: torch.cuda.current_stream().synchronize(),
    "Event.synchronize": lambda logits: torch.cuda.current_stream().record_event().synchronize(),
}


def planted(name: str) -> AbstractContextManager[Any]:
    """The patch that puts a mistake in."""
    if name in IN_THE_LOSS:
        loss = MaskMatch.loss

        def faulty(self: MaskMatch, logits: Tensor, *args: Any) -> Tensor:
            IN_THE_LOSS[name](logits)
            return loss(self, logits, *args)

        return mock.patch.object(MaskMatch, "loss", faulty)
    return ELSEWHERE[name]()


def _take_without_recording(self: Handover, made: Made) -> Batch:
    torch.cuda.current_stream(self.device).wait_event(made.ready)
    return made.batch


ELSEWHERE: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "device without an index": lambda: mock.patch.object(distributed, "find_device", return_value=torch.device("cuda")),
    "batch taken before it is ready": lambda: mock.patch.object(Handover, "take", lambda self, made: made.batch),
    "batch whose memory is not kept": lambda: mock.patch.object(Handover, "take", _take_without_recording),
    "batch made on the training's stream": lambda: mock.patch.object(
        Handover, "make", lambda self, make: Made(make(), None)
    ),
}
