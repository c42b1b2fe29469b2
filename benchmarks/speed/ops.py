"""The operators against what one would write with torch, eager and compiled, and against the machine's floor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.provenance import machine
from benchmarks.speed import measure_gpu
from benchmarks.speed.measure import (
    bytes_per_millisecond,
    milliseconds,
    nanoseconds_per_exp,
    peak_bytes,
    percentiles,
)
from benchmarks.speed.ops_cases import CPU_SHAPES, DEFAULT_SHAPES, GPU_SHAPES, Case, all_cases, gpu_cases
from benchmarks.speed.selection import Selection
from maskmatch.ops import info, use_backend

PROVIDERS = ("eager", "compile", "cpp", "cuda", "triton")
SHAPES = (*CPU_SHAPES, *GPU_SHAPES)
COLUMNS = (
    "operator",
    "shape",
    "case",
    "mode",
    "provider",
    "instruction_set",
    "ms_p20",
    "ms_p50",
    "ms_p80",
    "graph_us",
    "host_us",
    "launches",
    "over_eager",
    "over_compile",
    "over_floor",
    "memory",
    "error",
    "problem",
)
ROUNDS = 11
SECONDS = 4.0  # for the rounds of a case, of which there are five at the least
LARGEST_ERROR = 1e-3  # relative, against fp64


@dataclass(frozen=True)
class Machine:
    """What the floors are made of."""

    exps_per_ms: float | None  # None where it could not be measured
    bytes_per_ms: float


def run(selection: Selection) -> Iterator[dict[str, Any]]:
    """One record for each case, mode and provider; on a CPU providers are timed in turns."""
    device = selection.device
    labels = _labels(selection)
    count = measure_gpu.bytes_of_a_copy() if device == "cuda" else 64 << 20
    floor = Machine(_exps_per_ms(selection), bytes_per_millisecond(count, device))
    if device == "cuda":
        cases = gpu_cases(selection.chosen_shapes(GPU_SHAPES))
    else:
        cases = all_cases(device, selection.chosen_shapes(CPU_SHAPES if selection.shapes else DEFAULT_SHAPES))
    for case in cases:
        for mode in case.modes:
            torch._dynamo.reset()
            yield from _records(case, mode, labels, floor, selection)


def _labels(selection: Selection) -> list[str]:
    """Providers that can be timed, the one for the CPU with each of its instruction sets."""
    found, labels = info(), list[str]()
    there = {"cpu": ("eager", "compile", "cpp"), "cuda": ("eager", "compile", "cuda", "triton")}[selection.device]
    for name in selection.chosen_providers(PROVIDERS):
        if name not in there:
            selection.skip(f"ops, {name}: does not run on {selection.device}")
        elif name in ("eager", "compile"):
            labels.append(name)
        elif name not in found["available"]:
            selection.skip(f"ops, {name}: {found['problems'].get(name) or 'not installed'}")
        elif name == "cpp":
            sets = found["instruction_sets"]
            labels += [f"cpp {name}" for name in sets[: sets.index(found["instruction_set"]) + 1]]
        else:
            labels.append(name)
    return labels


def _exps_per_ms(selection: Selection) -> float | None:
    if selection.device == "cuda":
        return measure_gpu.exps_per_millisecond()
    try:
        return torch.get_num_threads() * 1e6 / nanoseconds_per_exp(info()["instruction_set"] or "default")
    except (RuntimeError, OSError) as error:
        selection.skip(f"ops, floor of the exponentials: {error}")
        return None


def _records(
    case: Case, mode: str, labels: list[str], floor: Machine, selection: Selection
) -> Iterator[dict[str, Any]]:
    device = selection.device
    shared = machine(device) | {"area": "ops"} | case.describe(mode)
    functions, errors = {}, {}
    for label in labels:
        try:
            function = case.call(mode, _forward(case, label))
            errors[label] = case.error(function())
        except Exception as error:
            yield shared | _provider(label) | {"problem": f"fails, so not timed: {str(error).splitlines()[0]}"}
            continue
        if errors[label] < LARGEST_ERROR:
            functions[label] = function
        else:
            yield shared | _provider(label) | {"error": errors[label], "problem": "wrong, so not timed"}
    if device == "cuda":
        times = {label: measure_gpu.measure(function) for label, function in functions.items()}
    else:
        taken = milliseconds(functions, ROUNDS, device, warmup=2, seconds=SECONDS)
        times = {label: percentiles(of_label) for label, of_label in taken.items()}
    memory = {label: peak_bytes(function, device) for label, function in functions.items()}
    exps, least_bytes = case.least(mode)
    floor_ms = max(least_bytes / floor.bytes_per_ms, exps / floor.exps_per_ms if floor.exps_per_ms else 0.0)
    for label, measured in times.items():
        selection.trace(f"ops {case.operator} {case.shape} {case.case} {mode} {label}", functions[label])
        yield (
            shared
            | measured
            | _provider(label)
            | {
                "error": errors[label],
                "gigabytes_per_second": least_bytes / measured["ms_p50"] / 1e6,
                "over_eager": _over(times, "eager", measured),
                "over_compile": _over(times, "compile", measured),
                "over_floor": _kernels_ms(measured) / floor_ms,
                "floor_ms": floor_ms,
                "memory_bytes": memory[label],
                "memory": memory[label] / memory["eager"] if memory.get("eager") else None,
            }
        )


def _forward(case: Case, label: str) -> Callable[[], Any]:
    if label == "eager":
        return case.eager
    if label == "compile":
        return torch.compile(case.eager)
    backend, _, instruction_set = label.partition(" ")

    def call() -> Any:
        if instruction_set:
            os.environ["MASKMATCH_CPU_CAPABILITY"] = instruction_set
        with use_backend(backend):
            return case.fused()

    return call


def _provider(label: str) -> dict[str, str]:
    provider, _, instruction_set = label.partition(" ")
    return {"provider": provider, "instruction_set": instruction_set}


def _over(times: dict[str, dict[str, Any]], baseline: str, measured: dict[str, Any]) -> float | None:
    return _kernels_ms(times[baseline]) / _kernels_ms(measured) if baseline in times else None


def _kernels_ms(measured: dict[str, Any]) -> float:
    """On a GPU of the kernels alone, where that is known; else of the whole call."""
    graph_us: float | None = measured.get("graph_us")
    return measured["ms_p50"] if graph_us is None else graph_us / 1e3
