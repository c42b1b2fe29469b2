"""The operators against what one would write with torch, eager and compiled, and against the machine's floor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from measure import (
    bytes_per_millisecond,
    machine,
    milliseconds,
    nanoseconds_per_exp,
    peak_bytes,
    percentiles,
)
from ops_cases import Case, all_cases

from maskmatch.ops import info, use_backend

COLUMNS = (
    "operator",
    "shape",
    "case",
    "provider",
    "instruction_set",
    "ms_p50",
    "over_eager",
    "over_compile",
    "over_floor",
    "memory",
)
ROUNDS = 11


@dataclass(frozen=True)
class Machine:
    """What the floors are made of."""

    exps_per_ms: float | None  # None where not measured, as on CUDA
    bytes_per_ms: float


def run(device: str) -> Iterator[dict[str, Any]]:
    """One record for each case and provider; providers are timed in turns."""
    found = info()
    compiled = "cuda" if device == "cuda" else "cpp"
    sets = [""] if device == "cuda" else _usable_sets(found)
    exps = None
    if device == "cpu":
        exps = torch.get_num_threads() * 1e6 / nanoseconds_per_exp(sets[-1])
    floor = Machine(exps, bytes_per_millisecond(64 << 20, device))
    shared = machine(device) | {"area": "ops"}
    for case in all_cases(device):
        torch._dynamo.reset()
        functions: dict[str, Callable[[], Any]] = {"eager": case.eager, "compile": torch.compile(case.eager)}
        for name in sets:
            functions[f"{compiled} {name}".strip()] = _with_capability(case.fused, compiled, name)
        times = {name: percentiles(t) for name, t in milliseconds(functions, ROUNDS, device).items()}
        memory = {name: peak_bytes(function, device) for name, function in functions.items()}
        floor_ms = _floor(case, floor)
        for name, measured in times.items():
            yield (
                shared
                | case.describe()
                | measured
                | {
                    "provider": name.split()[0],
                    "instruction_set": name.partition(" ")[2],
                    "over_eager": times["eager"]["ms_p50"] / measured["ms_p50"],
                    "over_compile": times["compile"]["ms_p50"] / measured["ms_p50"],
                    "over_floor": measured["ms_p50"] / floor_ms,
                    "floor_ms": floor_ms,
                    "memory_bytes": memory[name],
                    "memory": memory[name] / max(1, memory["eager"]),
                }
            )


def _usable_sets(found: dict[str, Any]) -> list[str]:
    """Compiled instruction sets up to the one that this CPU picks."""
    sets = found["instruction_sets"]
    return sets[: sets.index(found["instruction_set"]) + 1]


def _with_capability(function: Callable[[], Any], backend: str, instruction_set: str) -> Callable[[], Any]:
    def call() -> Any:
        if instruction_set:
            os.environ["MASKMATCH_CPU_CAPABILITY"] = instruction_set
        with use_backend(backend):
            return function()

    return call


def _floor(case: Case, floor: Machine) -> float:
    """Exponentials at vector speed or bytes at copy bandwidth, whichever takes longer."""
    moving = case.bytes / floor.bytes_per_ms
    return moving if floor.exps_per_ms is None else max(moving, case.exps / floor.exps_per_ms)
