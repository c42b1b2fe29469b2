"""Times and memory of a call, and the floors of a machine."""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

EXP_SPEED = Path(__file__).resolve().parent / "exp_speed.cpp"
_FLAGS = {
    "avx512": "-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma",
    "default": "",
}
LEAST_ROUNDS = 5


def milliseconds(
    functions: dict[str, Callable[[], Any]], rounds: int, device: str, warmup: int = 3, seconds: float = math.inf
) -> dict[str, list[float]]:
    """Times of every function, in rounds that call each once, so that a busy machine is busy for all of them.

    After `seconds` there are no more rounds, once there were `LEAST_ROUNDS`.
    """
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(warmup):
            function()
    began = time.perf_counter()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            taken[name].append((time.perf_counter() - start) * 1e3)
    return taken


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def percentiles(times: list[float]) -> dict[str, float]:
    fifths = statistics.quantiles(times, n=10)
    return {"ms_p20": fifths[1], "ms_p50": statistics.median(times), "ms_p80": fifths[7]}


def peak_bytes(function: Callable[[], Any], device: str) -> int:
    """The most that a call holds of torch's memory beyond what was held before it, its results included."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = function()
    del result
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def nanoseconds_per_exp(instruction_set: str) -> float:
    """One exponential on one thread at the vector speed of an instruction set, from exp_speed.cpp."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("a C++ compiler is needed to measure the floor")
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/exp_speed"
        flags = ["-O3", "-std=c++17", "-w", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
        subprocess.run(
            [compiler, *flags, *_FLAGS[instruction_set].split(), "-DMASKMATCH_ISA=native",
             str(EXP_SPEED), "-o", program],
            check=True,
        )  # fmt: skip
        return float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def bytes_per_millisecond(count: int, device: str) -> float:
    """Bandwidth of a copy that reads and writes `count` bytes in all."""
    source = torch.zeros(count // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = milliseconds({"copy": lambda: target.copy_(source)}, 30, device)["copy"]
    return count / min(times)
