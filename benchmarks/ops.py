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
LARGEST_ERROR = 1e-3  # relative, against fp64


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
        errors = {name: case.error(function()) for name, function in functions.items()}
        for name, error in errors.items():
            if not error < LARGEST_ERROR:
                yield shared | case.describe() | _provider(name) | {"error": error, "problem": "wrong, so not timed"}
                del functions[name]
        times = {name: percentiles(t) for name, t in milliseconds(functions, ROUNDS, device).items()}
        memory = {name: peak_bytes(function, device) for name, function in functions.items()}
        floor_ms = _floor(case, floor)
        for name, measured in times.items():
            yield (
                shared
                | case.describe()
                | measured
                | _provider(name)
                | {
                    "error": errors[name],
                    "gigabytes_per_second": case.bytes / measured["ms_p50"] / 1e6,
                    "over_eager": _over(times, "eager", measured),
                    "over_compile": _over(times, "compile", measured),
                    "over_floor": measured["ms_p50"] / floor_ms,
                    "floor_ms": floor_ms,
                    "memory_bytes": memory[name],
                    "memory": memory[name] / memory["eager"] if memory.get("eager") else None,
                }
            )


def _provider(name: str) -> dict[str, str]:
    provider, _, instruction_set = name.partition(" ")
    return {"provider": provider, "instruction_set": instruction_set}


def _over(times: dict[str, dict[str, float]], baseline: str, measured: dict[str, float]) -> float | None:
    return times[baseline]["ms_p50"] / measured["ms_p50"] if baseline in times else None


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
