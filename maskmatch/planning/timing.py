"""How long the parts of a training take on this machine: ten real steps are timed, and a few images of val."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from maskmatch import ops
from maskmatch.config import Config
from maskmatch.metrics import Validator
from maskmatch.run_files import checkpoint
from maskmatch.training.build import build
from maskmatch.training.loop import take_step
from maskmatch.training.marks import wait_for
from maskmatch.training.run import Run

WARMUP, TIMED = 4, 10  # steps; the first ones allocate, and on a GPU record their graph
LOOKED_AT = 8  # images of val


@dataclass(frozen=True)
class Times:
    """Seconds."""

    build: float
    step: float  # with every loss, and the baseline beside it
    image: float  # of one network on a whole image of val
    save: float  # of a checkpoint


def measure(config: Config) -> Times:
    """Take steps of the run that `config` says, in a folder that is gone afterwards.

    Raises:
        UserError: as `maskmatch.training.train`, before step 1.
    """
    every_loss = replace(config.method, warmup_steps=0, ramp_steps=0)
    train = replace(config.train, steps=WARMUP + TIMED, epochs=None)
    with tempfile.TemporaryDirectory() as place, nullcontext() if config.fused else ops.use_backend("reference"):
        started = time.perf_counter()
        run = build(replace(config, output=place, resume="never", method=every_loss, train=train))
        built = time.perf_counter() - started
        with run.loader, closing(run.log) if run.log else nullcontext():
            _seconds(run, WARMUP)
            step = _seconds(run, TIMED) / TIMED
            return Times(built, step, _image(run), _save(run))


def _seconds(run: Run, steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        take_step(run)
    wait_for(run.device)
    return time.perf_counter() - started


def _image(run: Run) -> float:
    pairs = run.dataset.val[:LOOKED_AT]
    validator = Validator(run.student, pairs, run.dataset.mask_table, run.dataset.num_classes, run.device)
    started = time.perf_counter()
    validator(run.student.network)
    wait_for(run.device)
    return (time.perf_counter() - started) / max(1, len(pairs))


def _save(run: Run) -> float:
    started = time.perf_counter()
    networks = run.student.network, run.teacher.network
    checkpoint.save(Path(run.folder) / "checkpoints", *networks, run.state(), best=True, keep=1)
    return time.perf_counter() - started
