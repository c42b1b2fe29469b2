"""Times of a call on a GPU, apart from each other: of the device, of the host, and of nothing but the kernels.

With Triton's own timers. What the device can do at best is measured or follows from its clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

HOST_CALLS = 20
EXPS_A_CLOCK = 16  # of a multiprocessor, sm_75 to sm_120
# Calls of the runtime and the driver that put work onto the device.
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaGraphLaunch")
TIMES_L2 = 16  # what a copy moves, so that nearly nothing of it lies in the L2


def measure(function: Callable[[], Any]) -> dict[str, Any]:
    """What a record says of a call on a GPU.

    `ms_p20`, `ms_p50` and `ms_p80` are between events, each call with a cold L2, and hold the host's time where it is
    the longer one. `graph_us` is of a CUDA graph's replay, so of the kernels alone; None where the call cannot be
    captured. `host_us` is what the host takes to issue the call. `launches` are the kernels and copies of a call.
    """
    from triton.testing import do_bench

    low, median, high = do_bench(function, warmup=15, rep=60, quantiles=[0.2, 0.5, 0.8])
    return {
        "ms_p20": low,
        "ms_p50": median,
        "ms_p80": high,
        "graph_us": _graph_us(function),
        "host_us": _host_us(function),
        "launches": _launches(function),
    }


def _graph_us(function: Callable[[], Any]) -> float | None:
    from triton.testing import do_bench_cudagraph

    try:
        return 1e3 * float(do_bench_cudagraph(function, rep=25, return_mode="median"))
    except RuntimeError:  # such as torch.compile's, where it compiles or reads something back
        torch.cuda.synchronize()
        return None


def _host_us(function: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(HOST_CALLS):
        function()
    taken = time.perf_counter() - start
    torch.cuda.synchronize()
    return 1e6 * taken / HOST_CALLS


def _launches(function: Callable[[], Any]) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        function()
        torch.cuda.synchronize()
    of_host = ("cuda", "cu", "Activity")  # calls of the runtime and the driver, and what the profiler does
    return sum(event.count for event in profiler.key_averages() if not event.key.startswith(of_host))


def exps_per_millisecond() -> float:
    """At the highest clock."""
    device = torch.cuda.get_device_properties()
    return EXPS_A_CLOCK * device.multi_processor_count * float(device.clock_rate)  # in kHz


def bytes_of_a_copy() -> int:
    """How much `bytes_per_millisecond` is to move."""
    return TIMES_L2 * int(torch.cuda.get_device_properties().L2_cache_size)


def activity(function: Callable[[], Any]) -> dict[str, float]:
    """What the device does in a call, all streams together.

    `kernel_ms` is the time in which at least one kernel or copy runs, `idle_share` the rest of what the call takes;
    `kernels` are those, `launches` what the host issues for them: a graph's replay is one.
    """
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    taken = 1e3 * (time.perf_counter() - start)  # without the profiler, which slows the host
    with torch.profiler.profile() as profiler:
        function()
        torch.cuda.synchronize()
    events = profiler.events()
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    issued = [event for event in events if event.name.startswith(LAUNCHES)]
    busy = covered([(event.time_range.start, event.time_range.end) for event in on_device]) / 1e3
    return {
        "kernel_ms": busy,
        "idle_share": max(0.0, 1 - busy / taken),
        "kernels": len(on_device),
        "launches": len(issued),
    }


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of what intervals cover together."""
    length, reached = 0.0, -math.inf
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length
