"""Whole training steps, data included, against the bare passes of the networks that they need."""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.provenance import machine
from benchmarks.speed import measure_gpu
from benchmarks.speed.measure import milliseconds, peak_bytes, percentiles
from benchmarks.speed.selection import Selection
from benchmarks.speed.step_configs import SHAPES as SHAPES
from benchmarks.speed.step_configs import chosen_configs
from maskmatch.commands.command_line import parse_train
from maskmatch.common.allocator import keep_freed_memory
from maskmatch.ops import use_backend
from maskmatch.training.build import build
from maskmatch.training.loop import take_step
from maskmatch.training.phases import PHASES
from maskmatch.training.run import Run

COLUMNS = (
    "config",
    "provider",
    "shape",
    "ms_p20",
    "ms_p50",
    "ms_p80",
    "over_network",
    "images_per_second",
    "peak_memory_mb",
    "kernel_ms",
    "idle_share",
    "kernels",
    "launches",
    *(f"{name.replace(' ', '_')}_ms" for name in PHASES),
)
BLOCK = 10  # steps a measurement, one of which is logged
WARMUP = 4  # steps before, which compile, allocate, and are recorded as CUDA graphs
# Of the built-in data six epochs: images are decoded in the first one.
ROUNDS = {"builtin": 30, "camvid": 5, "voc": 5, "cityscapes": 5}
PROVIDERS = {
    "fused": ["--fused"],
    "eager": ["--no-fused"],
    "compile": ["--no-fused", "--train.compile", "true"],
    "supervised": ["--fused", "--method.supervised_only", "true"],
}
COMPILE_SECONDS = 120  # that the provider `compile` may take to compile a configuration


def run(selection: Selection) -> Iterator[dict[str, Any]]:
    """One record for each configuration and provider; providers and their bare passes are timed in turns."""
    keep_freed_memory()  # as maskmatch.train does
    providers = {name: PROVIDERS[name] for name in selection.chosen_providers(PROVIDERS)}
    with tempfile.TemporaryDirectory() as folder:
        for config, options in chosen_configs(selection, Path(folder)).items():
            chosen = dict(providers)
            if "compile" in chosen and not _compiles(options):
                selection.skip(f"step, {config}, compile: torch.compile took more than {COMPILE_SECONDS} s")
                del chosen["compile"]
            torch._dynamo.reset()
            with prepared(options, chosen) as runs:
                yield from _records(config, runs, selection)


def _compiles(options: list[str]) -> bool:
    """Whether torch.compile ends in time, in a process that can be ended; what it made is then in torch's cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*options, *PROVIDERS["compile"], "--profile", "1", "--output", f"{folder}/run"]
        try:
            subprocess.run(
                [sys.executable, "-m", "maskmatch.train", *command],
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=COMPILE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return False
    return True


@contextmanager
def prepared(options: list[str], variants: dict[str, list[str]]) -> Iterator[dict[str, Run]]:
    """A run of each variant's further options, at its first step."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: build(parse_train([*options, *chosen, "--output", f"{folder}/{name}"]))
            for name, chosen in variants.items()
        }
        try:
            yield runs
        finally:
            for training in runs.values():
                training.loader.close()
                if training.log:
                    training.log.close()


def _records(config: str, runs: dict[str, Run], selection: Selection) -> Iterator[dict[str, Any]]:
    functions: dict[str, Callable[[int], None]] = {}
    for name, training in runs.items():
        functions[name] = steps(training)
        functions[f"{name} network"] = _bare_passes(training)
    times = milliseconds_a_step(functions, ROUNDS[config], selection.device)
    for name, training in runs.items():
        network = times[f"{name} network"]
        ratios = [step / bare for step, bare in zip(times[name], network, strict=True)]
        training.train_step.phases.tracing = True
        selection.trace(f"step {config} {name}", partial(_step, training))
        training.train_step.phases.tracing = False
        yield describe(config, training, times[name], selection.device) | {
            "provider": name,
            "network_ms_p50": statistics.median(network),
            "over_network": statistics.median(ratios),
        }


def milliseconds_a_step(
    functions: dict[str, Callable[[int], None]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Of blocks of steps, in turns; each function takes a number of steps."""
    for function in functions.values():
        function(WARMUP)
    blocks = milliseconds({name: partial(f, BLOCK) for name, f in functions.items()}, rounds, device, warmup=0)
    return {name: [ms / BLOCK for ms in block] for name, block in blocks.items()}


def describe(config: str, run: Run, times: list[float], device: str) -> dict[str, Any]:
    """What a record of a run's steps says in any case."""
    train = run.config.train
    images = train.batch_size * (1 if run.config.method.supervised_only else 2)
    measured = percentiles(times)
    return (
        machine(device)
        | measured
        | {
            "area": "step",
            "config": config,
            "shape": f"{images}x3x{'x'.join(map(str, run.config.data.crop))}",
            "precision": train.precision,
            "loader": run.loader.name,
            "images_per_second": 1e3 * images / measured["ms_p50"],
            "peak_memory_mb": (_held_bytes(run) + peak_bytes(partial(_step, run), device)) / 2**20,
        }
        | _phases(run)
        | (_activity(run) if device == "cuda" else {})
    )


def _phases(run: Run) -> dict[str, float]:
    """Milliseconds of each phase of a step, the mean of a block."""
    phases = run.train_step.phases
    phases.milliseconds()
    phases.timing = True
    steps(run)(BLOCK)
    phases.timing = False
    return {f"{name.replace(' ', '_')}_ms": ms / BLOCK for name, ms in phases.milliseconds().items()}


def _activity(run: Run) -> dict[str, float]:
    """What the device does in a step, the mean of a block."""
    found = measure_gpu.activity(partial(steps(run), BLOCK))
    return {name: value if name == "idle_share" else value / BLOCK for name, value in found.items()}


def steps(run: Run) -> Callable[[int], None]:
    """Takes steps, and waits for the batches that are made ahead, so that no thread works in another's time."""

    def take(count: int) -> None:
        for _ in range(count):
            _step(run)
        run.loader.settle()

    return take


def _step(run: Run) -> None:
    with nullcontext() if run.config.fused else use_backend("reference"):
        take_step(run)
        run.recorder.pending.clear()


def _bare_passes(run: Run) -> Callable[[int], None]:
    """The passes of some steps: the same networks, shapes, dtype, modes and branches, and nothing else."""
    student, teacher = copy.deepcopy(run.student.network).train(), copy.deepcopy(run.teacher.network)
    step, method = run.train_step, run.train_step.method
    height, width = run.config.data.crop
    views = run.config.train.batch_size, 3, height, width
    branches = [_random(views, step.device) for _ in method.ramp_up.weights(0)]
    scales = []
    if len(branches) > 1:
        scales = [_random(view.shape, step.device) for view in method.scaled_views(next(run.loader))]
    forward, label = (torch.compile(n, dynamic=False) if run.config.train.compile else n for n in (student, teacher))

    def once() -> None:
        with torch.no_grad(), step.autocast():
            for view in scales:
                label(view)
        for images in branches:
            with step.autocast():
                logits = forward(images)
            logits.sum().backward()
        student.zero_grad(set_to_none=True)

    one = _as_graph(once) if step.device.type == "cuda" else once

    def take(count: int) -> None:
        for _ in range(count):
            one()

    return take


def _as_graph(function: Callable[[], None]) -> Callable[[], None]:
    """The same as one CUDA graph, so that the host does not count."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def _random(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.randn(shape, device=device).to(memory_format=torch.channels_last)


def _held_bytes(run: Run) -> int:
    """Of the weights, the optimizer's state and the teacher."""
    tensors = [*run.student.network.state_dict().values(), *run.teacher.network.state_dict().values()]
    for state in run.train_step.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
