"""A training run, top to bottom: build, loop, after each step, finish."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from typing import Any

from maskmatch import ops
from maskmatch.common.errors import UserError
from maskmatch.common.signals import StopError, StopSignal
from maskmatch.config import Config
from maskmatch.models import Student
from maskmatch.training import distributed
from maskmatch.training.after_step import after_step, save
from maskmatch.training.build import build
from maskmatch.training.finish import finish
from maskmatch.training.run import Run
from maskmatch.training.telemetry import Display


def train(config: Config, student: Student | None = None, stop: StopSignal | None = None) -> dict[str, Any]:
    """Run a whole training and return what summary.json holds; of several processes in the first only.

    Args:
        config: every option.
        student: a network of your own, from `maskmatch.models.from_module`, in the place of `config.model`'s.
        stop: ends the run before its time, with a checkpoint.

    Raises:
        UserError: something in the configuration, the data or the output folder is wrong.
        StopError: `stop` received a signal.
    """
    stop = stop or StopSignal()
    try:
        with nullcontext() if config.fused else ops.use_backend("reference"):
            with stop.raising():
                run = build(config, student)
            summary = _train(run, stop)
    except RuntimeError as error:
        if lost := distributed.lost_process(error):
            raise lost from error
        raise
    distributed.leave()
    return summary


def _train(run: Run, stop: StopSignal) -> dict[str, Any]:
    display = Display(run.steps, run.step, quiet=not run.world.leads)
    with display, run.loader, closing(run.log) if run.log else nullcontext():
        if run.is_over and run.world.share((run.folder / "summary.json").exists()):
            display.say(f"{run.folder} is complete: its {run.step} steps are done")
            return json.loads((run.folder / "summary.json").read_text()) if run.world.leads else {}
        for line in (run.headline(), *run.notes):
            display.say(line)
        try:
            _take_steps(run, display, stop)
        except StopError as signal:
            if run.step != run.saved_step:
                save(run, display)
            run.world.barrier()  # torchrun ends all when one has ended
            raise StopError(f"{signal} after step {run.step}; go on with --output {run.folder} --resume") from None
    return finish(run, display)


def _take_steps(run: Run, display: Display, stop: StopSignal) -> None:
    if not run.finished_step:
        after_step(run, display, stop)
    run.speed.start()
    while not run.is_over:
        if _told_to_stop(run, stop):
            raise StopError(stop.received or "a signal to another process")
        take_step(run)
        if (graphs := run.train_step.graphs) and graphs.fault:
            display.say(f"step {run.step}: no CUDA graph, {graphs.fault}")
            run.train_step.graphs = None
        run.speed.step()
        after_step(run, display, stop)


def take_step(run: Run) -> None:
    """Wait for the next batch and train on it."""
    with run.train_step.phases("data wait"), run.speed.waiting():
        run.batches = [next(run.loader) for _ in range(run.config.train.accumulate)]
    try:
        if run.baseline:
            run.baseline(run.batches, run.step, run.train_step)
        run.recorder.pending.append(run.train_step(run.batches, run.step, compare=run.is_logged(run.step)))
    except (ValueError, RuntimeError) as error:  # the latter from torch.compile
        if "more than 1 value per channel" not in str(error):  # BatchNorm after a global pooling
            raise
        got = run.config.train.batch_size
        raise UserError(f"this network's BatchNorm needs train.batch_size of at least 2, got {got}") from error
    run.step += 1
    run.finished_step = False


def _told_to_stop(run: Run, stop: StopSignal) -> bool:
    """Whether this is to be the end; several processes stop together, one step after a signal came to any of them."""
    told = stop.received is not None
    if run.world.size == 1:
        return told
    vote, run.vote = run.vote, run.world.vote(told)  # so its answer has a step's time to come
    return vote is not None and vote.result()
