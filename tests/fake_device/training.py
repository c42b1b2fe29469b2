"""The real trainer on the fake device: everything is the product's own, but for where tensors become fake."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from checks import StepCheck
from device import Device, fake_device
from plants import planted
from torch._subclasses.fake_tensor import unset_fake_temporarily

from maskmatch import ops
from maskmatch.commands.command_line import parse_train
from maskmatch.data.loading.loader import BatchMaker
from maskmatch.method import reconstruction
from maskmatch.training import build, loop
from maskmatch.training import run as training_run
from maskmatch.training.graph import StepGraphs
from maskmatch.training.run import Run
from tests.training.graph.operators import Operators, differences, reads

STEPS = 8  # the ramp's, then two eager ones, a recorded one of either kind, and replays
DEFAULTS = (
    "--train.device=cuda", "--train.steps=40", "--data.loader=torch", "--method.warmup_steps=0",
    "--method.ramp_steps=2",
)  # fmt: skip


def train(folder: Path, options: Sequence[str], plant: str | None) -> dict[str, Any]:
    """`build` and STEPS steps of the built-in data, every second one logged; from the second on none may wait."""
    with planted(plant) if plant else nullcontext(), _built(folder, options) as (device, check, run):
        run.speed.start()
        for step in range(STEPS if run.train_step.graphs else 3):
            device.refuses_waiting = step >= 1
            loop.take_step(run)
            for batch in run.batches:
                check.check_batch(batch)
            run.speed.step()
            run.recorder.start(run.step, {})
        device.refuses_waiting = False
        graphs = run.train_step.graphs
        return {
            "steps": run.step,
            "device": str(run.device),
            "backend": ops.current_backend(run.device),
            "recorded": len(graphs.records) if graphs else 0,
            "fault": graphs.fault if graphs else None,
        }


def compare_steps(folder: Path, options: Sequence[str], *, logged: bool) -> dict[str, Any]:
    """What two steps of the built-in data, with every loss, have not alike as a CUDA graph must, and what they read."""
    with _built(folder, options) as (device, _, run):
        records, graphs, step = [Operators(), Operators()], StepGraphs(run.config.train), run.train_step
        for number, record in enumerate((nullcontext(), nullcontext(), *records)):
            device.refuses_waiting = number >= 1
            batches = [next(run.loader) for _ in range(run.config.train.accumulate)]
            inputs = [graphs.copied(batch._replace(truth=batch.target if logged else None), 0) for batch in batches]
            step.set_numbers(number)
            with record:
                step.take(inputs, number, step.compared(number) if logged else None)
        device.refuses_waiting = False
        return {"operators": len(records[0].calls), "unlike": differences(*records)[:9], "reads": reads(records[1])[:9]}


@contextlib.contextmanager
def _built(folder: Path, options: Sequence[str]) -> Iterator[tuple[Device, StepCheck, Run]]:
    """A run that is ready for its first step, under the checks."""
    config = parse_train([*DEFAULTS, f"--output={folder / 'run'}", *options])
    with fake_device() as device:
        check = StepCheck(device)
        with _real_beginnings(device, check), nullcontext() if config.fused else ops.use_backend("reference"):
            run = build.build(config)
            with run.loader, closing(run.log) if run.log else nullcontext(), check:
                yield device, check, run


@contextlib.contextmanager
def _real_beginnings(device: Device, check: StepCheck) -> Iterator[None]:
    """Networks are made, and files decoded, as they are; what is put on the device becomes fake there.

    The loader's threads do not see the main thread's modes.
    """
    on_device = BatchMaker._on_device

    def fake_on_device(self: BatchMaker, tensor: torch.Tensor) -> torch.Tensor:
        with device.mode.turn, device.mode, check:
            return on_device(self, tensor)

    with (
        mock.patch.object(training_run, "LOG_EVERY", 2),  # so that the second step is one
        mock.patch.object(build, "build_student", real(build.build_student)),
        mock.patch.object(build, "find_folds", real(build.find_folds)),
        mock.patch.object(reconstruction, "ReconstructionHead", real(reconstruction.ReconstructionHead)),
        mock.patch.object(BatchMaker, "_batch", real(BatchMaker._batch)),
        mock.patch.object(BatchMaker, "_on_device", fake_on_device),
    ):
        yield


def real(make: Callable[..., Any]) -> Callable[..., Any]:
    """The function, on real tensors."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return make(*args, **kwargs)

    return call
