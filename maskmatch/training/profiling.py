"""`--profile N`: where the time of a training step goes, and a trace to look at."""

from __future__ import annotations

import os
import time
from contextlib import closing, nullcontext
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity

from maskmatch import ops
from maskmatch.common.errors import UserError
from maskmatch.common.text_files import write_text
from maskmatch.config import Config
from maskmatch.training.build import build
from maskmatch.training.loop import take_step
from maskmatch.training.marks import wait_for
from maskmatch.training.phases import NETWORK, PHASES
from maskmatch.training.run import Run

WARMUP = 5  # steps that compile, allocate and fill the loader's queue
TRACED = 5  # steps in the trace, at most: it has every operation


def profile(config: Config, timed: int) -> str:
    """Time `timed` steps with every loss live, then trace some more; no checkpoint is written.

    The times are taken without the profiler, which slows small operations down. On a GPU they are the device's. Steps
    that would be replayed as CUDA graphs are timed as such first, as a whole: their phases are those of eager ones.

    Returns:
        The table by phase, which stands in the run's folder as profile.txt beside trace.json.gz.

    Raises:
        UserError: as in `maskmatch.training.train`.
    """
    if config.resume != "never":
        raise UserError(f"--profile starts anew, in a folder of its own: leave out --resume, got {config.resume}")
    steps = WARMUP + 2 * timed + TRACED
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # without a GPU it would say that it finds none, as an error
    every_loss = replace(config.method, warmup_steps=0, ramp_steps=0)
    config = replace(config, method=every_loss, train=replace(config.train, steps=steps, epochs=None, baseline_every=0))
    with nullcontext() if config.fused else ops.use_backend("reference"):
        run = build(config)
        headline = run.headline()
        with run.loader, closing(run.log) if run.log else nullcontext():
            _take_steps(run, WARMUP)
            as_graphs = _milliseconds(run, timed) if run.train_step.graphs else None
            run.train_step.phases.timing = True
            total = _milliseconds(run, timed)
            run.train_step.phases.timing = False
            phases = run.train_step.phases.milliseconds()
            table = headline + _table(run, timed, total, {name: ms / timed for name, ms in phases.items()})
            if as_graphs:
                table += (
                    f"{as_graphs:.2f} ms a step where they are replayed as CUDA graphs; the table is of eager ones\n"
                )
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if run.device.type == "cuda" else [])]
            run.train_step.phases.tracing = True
            with torch.profiler.profile(activities=activities) as profiler:
                _take_steps(run, min(TRACED, timed))
    if run.world.leads:
        profiler.export_chrome_trace(str(run.folder / "trace.json.gz"))
        write_text(run.folder / "profile.txt", table)
    return table if run.world.leads else ""


def _take_steps(run: Run, steps: int) -> None:
    for _ in range(steps):
        take_step(run)
    wait_for(run.device)


def _milliseconds(run: Run, steps: int) -> float:
    """Of a step."""
    started = time.perf_counter()
    _take_steps(run, steps)
    return 1e3 * (time.perf_counter() - started) / steps


def _table(run: Run, timed: int, total: float, phases: dict[str, float]) -> str:
    """Milliseconds a step by phase. What the phases do not cover is the host's own, or the gaps between kernels."""
    network = sum(phases[name] for name in NETWORK)
    rows = [*((name, phases[name]) for name in PHASES), ("rest", total - sum(phases.values())), ("step", total)]
    lines = ["\n", f"{'phase':16}{'ms a step':>10}{'share':>8}"]
    lines += [f"{name:16}{ms:10.2f}{ms / total:8.1%}" for name, ms in rows]
    lines += ["", f"{1 - network / total:.1%} of a step is not network compute ({', '.join(NETWORK)})"]
    lines += [f"trace of {min(TRACED, timed)} steps: {run.folder / 'trace.json.gz'}", ""]
    return "\n".join(lines)
