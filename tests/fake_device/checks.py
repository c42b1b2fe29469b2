"""What a step on a GPU must not do, seen operator by operator."""

from __future__ import annotations

from typing import Any

import torch
from device import PINNED, Device, WaitError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskmatch.common.batch import Batch

aten = torch.ops.aten
SKIPPED = {aten._fused_sgd_.tensor_lr, aten._fused_adamw_.tensor_lr, aten.record_stream.default}
"""Operators that change their arguments in place and for which FakeTensorMode has no rule."""


class StepCheck(TorchDispatchMode):
    """Refuses copies for which the host waits, random numbers of another device, and memory that is read too early.

    The last is seen by the streams' and events' stand-ins: a tensor must have been written on the current stream, or on
    one that the current stream has waited for.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.written: dict[int, tuple[Any, int]] = {}  # storage -> stream and number of the last operator that wrote it

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.device.refuses_waiting:
            _check_copy(function, args, kwargs)
        self._check_order(function, _gpu_tensors((args, kwargs)))
        outputs = None if function in SKIPPED else function(*args, **kwargs)
        _check_generator(function, tree_leaves((args, kwargs)), outputs)
        if kwargs.get("pin_memory"):
            setattr(outputs, PINNED, True)
        self._note(function, args, kwargs, outputs)
        return outputs

    def _check_order(self, function: Any, inputs: list[Tensor]) -> None:
        stream = self.device.stream
        for tensor in inputs:
            writer, number = self.written.get(_storage(tensor), (stream, 0))
            if stream.seen.get(writer, 0) < number:
                raise RuntimeError(f"{function} reads what another stream may still be writing")

    def check_batch(self, batch: Batch) -> None:
        """The batch was made on a stream of its own, and its memory stays until the training has read it."""
        training = self.device.default_stream
        kept = {_storage(tensor) for tensor, stream in self.device.recorded if stream is training}
        for name, tensor in batch._asdict().items():
            if tensor is not None and self.written[_storage(tensor)][0] is training:
                raise RuntimeError(f"batch.{name} was made on the training's stream")
            if tensor is not None and _storage(tensor) not in kept:
                raise RuntimeError(f"batch.{name} was not recorded on the training's stream")

    def _note(self, function: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        """Remember what was written: what did not exist before, and arguments that are changed in place."""
        before = {_storage(tensor) for tensor in _gpu_tensors((args, kwargs))}
        written = [tensor for tensor in _gpu_tensors(outputs) if _storage(tensor) not in before]
        for place, argument in enumerate(function._schema.arguments):
            if argument.alias_info and argument.alias_info.is_write:
                written += _gpu_tensors(args[place] if place < len(args) else kwargs.get(argument.name))
        if written:
            number = self.device.stream.work()
            for tensor in written:
                self.written[_storage(tensor)] = self.device.stream, number


def _check_copy(function: Any, args: Any, kwargs: Any) -> None:
    if function is aten._to_copy.default:
        source, target = args[0], None
        there, waits = torch.device(kwargs.get("device") or source.device), not kwargs.get("non_blocking")
    elif function is aten.copy_.default:
        target, source = args[:2]
        there, waits = target.device, not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
    else:
        return
    if source.device.type == there.type:
        return
    on_host = source if source.device.type == "cpu" else target
    if waits or not getattr(on_host, PINNED, False):
        kind = "a blocking copy" if waits else "a copy of pageable memory"
        raise WaitError(f"{kind}: {list(source.shape)} from {source.device} to {there}")


def _check_generator(function: Any, inputs: list[Any], outputs: Any) -> None:
    places = {leaf.device.type for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)}
    for generator in inputs:
        if isinstance(generator, torch.Generator) and places - {generator.device.type}:
            raise RuntimeError(f"{function}: expected a generator of {places.pop()}, got one of {generator.device}")


def _gpu_tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.device.type == "cuda"]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
