"""What a step does, operator by operator, so that two can be compared: a CUDA graph repeats one for all others."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS_OR_BRINGS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "equal",
    "repeat_interleave.Tensor",
    "lift_fresh",
)
"""Operators by which a value comes to the host, or one from it."""


class Call(NamedTuple):
    """One operator and all that it was given."""

    operator: str
    arguments: tuple[Any, ...]
    place: str  # in the product


class Operators(TorchDispatchMode):
    """Records the operators that run inside.

    A tensor is its shape, strides, offset, dtype and device, and its memory: `new N`, the Nth that was made inside, or
    `old ADDRESS`. All of it is kept alive, so that no address comes twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.made: dict[int, int] = {}  # storage -> its number
        self._alive: list[Any] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.namespace == "prim":  # a tensor's property
            return function(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        self.calls.append(Call(function.name(), tuple(self._described(leaf) for leaf in leaves), _place()))
        inputs = {_storage(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        results = function(*args, **kwargs)
        self._alive.append((args, kwargs, results))
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor) and _storage(leaf) not in inputs:
                self.made.setdefault(_storage(leaf), len(self.made))
        return results

    def _described(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            at = _storage(leaf)
            memory = f"new {self.made[at]}" if at in self.made else f"old {at}"
            return tuple(leaf.shape), leaf.stride(), leaf.storage_offset(), leaf.dtype, leaf.device, memory
        if isinstance(leaf, torch.Generator):
            return f"generator of {leaf.device}"
        return type(leaf).__name__, str(leaf)

    def old(self) -> set[int]:
        """The memory that was there before."""
        found = [leaf for alive in self._alive for leaf in tree_leaves(alive) if isinstance(leaf, Tensor)]
        return {_storage(tensor) for tensor in found} - set(self.made)


def differences(one: Operators, other: Operators) -> list[str]:
    """What keeps a record of `one` from standing for `other`, a later step; none if it can."""
    found = []
    for a, b in zip(one.calls, other.calls, strict=False):
        if a.operator != b.operator:
            return [*found, f"{a.operator} at {a.place}, then {b.operator} at {b.place}"]
        pairs = zip(a.arguments, b.arguments, strict=True)
        found += [f"{a.operator} at {a.place}: {x}, then {y}" for x, y in pairs if x != y]
    if len(one.calls) != len(other.calls):
        found.append(f"{len(one.calls)} operators, then {len(other.calls)}")
    if one.made.keys() & other.old():
        found.append("memory that was made in a step is used in a later one")
    return found


def reads(record: Operators) -> list[str]:
    """Where a step brings a value to the host or from it."""
    devices = {leaf[4].type for call in record.calls for leaf in call.arguments if len(leaf) == 6}
    mixed = [f"tensors of {sorted(devices)}"] if len(devices) > 1 else []
    return mixed + [
        f"{call.operator} at {call.place}"
        for call in record.calls
        if call.operator.removeprefix("aten::").startswith(READS_OR_BRINGS)
    ]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _place() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        if "/maskmatch/" in frame.f_code.co_filename and "/tests/" not in frame.f_code.co_filename:
            return f"{frame.f_code.co_filename.rpartition('/maskmatch/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "the backward pass"
