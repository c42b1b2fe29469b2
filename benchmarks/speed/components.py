"""`run.py step --components`: what each part of the method costs, in time and memory of a whole training step."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.speed import step
from benchmarks.speed.selection import Selection
from benchmarks.speed.step_configs import SHAPES as SHAPES
from benchmarks.speed.step_configs import chosen_configs
from maskmatch.training.run import Run

PROVIDERS = ("fused",)
COLUMNS = (
    "config",
    "component",
    "passes",
    "ms_p20",
    "ms_p50",
    "ms_p80",
    "over_supervised",
    "more_than",
    "more_ms",
    "more_mb",
    "images_per_second",
    "peak_memory_mb",
)
ROUNDS = {"builtin": 7, "camvid": 5, "voc": 5, "cityscapes": 5}


def scales(values: str) -> list[str]:
    return ["--method.lcr", "false", "--method.scales", values]


# Component -> the one that it is added to, and its options.
COMPONENTS: dict[str, tuple[str | None, list[str]]] = {
    "supervised": (None, ["--method.supervised_only", "true"]),
    "consistency (1 scale)": ("supervised", scales("[1.0]")),
    "+ MS, 2 scales": ("consistency (1 scale)", scales("[1.0, 1.5]")),
    "+ MS, 3 scales": ("+ MS, 2 scales", scales("[0.75, 1.0, 1.5]")),
    "+ LCR": ("consistency (1 scale)", ["--method.scales", "[1.0]"]),
    "full (as configured)": ("consistency (1 scale)", []),
}


def run(selection: Selection) -> Iterator[dict[str, Any]]:
    """One record for each configuration and component, all of them fused and timed in turns."""
    variants = {name: options for name, (_, options) in COMPONENTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        for config, options in chosen_configs(selection, Path(folder)).items():
            with step.prepared(options, variants) as runs:
                yield from _records(config, runs, selection)


def _records(config: str, runs: dict[str, Run], selection: Selection) -> Iterator[dict[str, Any]]:
    functions = {name: step.steps(training) for name, training in runs.items()}
    times = step.milliseconds_a_step(functions, ROUNDS[config], selection.device)
    records = {name: step.describe(config, training, times[name], selection.device) for name, training in runs.items()}
    for name, record in records.items():
        base = COMPONENTS[name][0]
        record |= {"provider": "fused", "component": name, "passes": _passes(runs[name]), "more_than": base}
        record["over_supervised"] = record["ms_p50"] / records["supervised"]["ms_p50"]
        if base:
            pairs = zip(times[name], times[base], strict=True)  # of one round, so that noise hits both
            record["more_ms"] = statistics.median(with_it - without for with_it, without in pairs)
            record["more_mb"] = record["peak_memory_mb"] - records[base]["peak_memory_mb"]
        yield record


def _passes(run: Run) -> str:
    """What the networks do: forwards and backwards of the student, forwards of the teacher at their scales."""
    method = run.config.method
    branches = len(run.train_step.method.ramp_up.weights(0))
    return f"{branches} + 0" if method.supervised_only else f"{branches} + {sum(s * s for s in method.scales):.2g}"
