"""CUDA graphs on a CPU: what runs inside a capture is recorded, takes no effect, and is run again by a replay.

A replay runs the recorded operators on the recorded memory and nothing else: no Python of the product, no autograd.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WRITES_UNSAID = {torch.ops.aten.native_batch_norm.default: (3, 4)}
"""Arguments that operators change without their schema saying so."""


class CUDAGraph:
    """What torch.cuda.CUDAGraph is to the product."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []  # operator, its arguments, where its results lie

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, results in self.calls:
            for old, new in zip(tree_leaves(results), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    old.copy_(new)


class Capture(TorchDispatchMode):
    """What torch.cuda.graph is to the product."""

    def __init__(self, graph: CUDAGraph, pool: Any, capture_error_mode: str) -> None:
        super().__init__()
        assert pool is not None
        assert capture_error_mode == "thread_local"
        self.graph = graph
        self._made: set[int] = set()
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # what is written, and a copy
        self._alive: list[Any] = []  # so that no address comes twice
        self._generator = torch.get_rng_state()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        inputs = {_address(tensor) for tensor in _tensors((args, kwargs))}
        written = _written(function, args, kwargs)
        for tensor in written:
            storage = tensor.untyped_storage()
            if _address(tensor) not in self._made | self._before.keys():
                self._before[_address(tensor)] = storage, storage.clone()
        results = function(*args, **kwargs)
        made = {_address(tensor) for tensor in _tensors(results)} - inputs
        self._made |= made
        if written or made or not _tensors(results):  # else it is a view, which stays one
            self.graph.calls.append((function, args, kwargs, results))
        self._alive.append((args, kwargs, results))
        return results

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for storage, before in self._before.values():
            storage.copy_(before)
        torch.set_rng_state(self._generator)


class Event:
    def __init__(self, blocking: bool = False) -> None: ...
    def record(self) -> None: ...
    def synchronize(self) -> None: ...


@contextmanager
def graphs_on_a_cpu() -> Iterator[None]:
    """Inside, `maskmatch.training.graph` may be used with tensors of the CPU."""
    stand_ins = {
        "CUDAGraph": CUDAGraph,
        "graph": Capture,
        "graph_pool_handle": object,
        "Event": Event,
        "current_stream": lambda: None,
        "stream": lambda stream: nullcontext(),
    }
    with ExitStack() as stack:
        for name, value in stand_ins.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        yield


def _written(function: Any, args: Any, kwargs: Any) -> list[Tensor]:
    found = [args[place] for place in WRITES_UNSAID.get(function, ())]
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info and argument.alias_info.is_write:
            found.append(args[place] if place < len(args) else kwargs.get(argument.name))
    return _tensors(found)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
