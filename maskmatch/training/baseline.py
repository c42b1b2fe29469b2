"""The supervised-only baseline of a run: what the labelled images alone would have given.

The warm-up is that very training. Where it ends a copy goes on without the unlabelled images, beside the run: it takes
every `train.baseline_every`-th step, on the labelled images and with the learning rate of the run's own. It is measured
whenever the run is, so that at the end the better of both can be handed over (handover.py). The run's own numbers are
those that it would have without.

A run that begins with the weights of one that had a baseline (`init_from`) shares no warm-up with its own: those have
learned from unlabelled images. Its baseline begins with that one's, and goes on from the first step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskmatch.common.batch import Batch
from maskmatch.config import Config
from maskmatch.method import Teacher
from maskmatch.metrics import Metrics, Validator
from maskmatch.models import Student, init_from
from maskmatch.run_files import checkpoint
from maskmatch.run_files.checkpoint import State, Weights
from maskmatch.training.distributed import World
from maskmatch.training.step import TrainStep, make_method


@dataclass
class Best:
    """The best that the baseline has been so far, on val."""

    miou: float = -1.0  # of the network that `train.select` names
    step: int = 0
    student: Weights = field(default_factory=dict)  # on the CPU
    teacher: Weights = field(default_factory=dict)


class Baseline:
    """A second student and its teacher, which begin as copies of the run's at the end of the warm-up, or on their own.

    Args:
        student: the run's; its network is copied, and is not trained yet.
        config: of the run, resolved.
        num_classes: C.
        world: the processes of the run.
    """

    def __init__(self, student: Student, config: Config, num_classes: int, world: World) -> None:
        self.every, self.select = config.train.baseline_every, config.train.select
        self.network = copy.deepcopy(student.network)
        self.on_its_own = _of_earlier_run(config)
        if self.on_its_own:
            init_from(self.network, str(self.on_its_own), num_classes)
        self.first = 0 if self.on_its_own else config.method.warmup_steps or 0  # its first step
        # Its teacher follows less often, and forgets so much faster.
        momentum = max(0.0, 1 - self.every * (1 - (config.method.ema_momentum or 0.0)))
        self.teacher = Teacher(self.network, momentum)
        method = make_method(replace(config.method, supervised_only=True), student, num_classes)
        self.train_step = TrainStep(self.network, self.teacher, method, config.train, world)
        self.begun = False
        self.best = Best()

    def __call__(self, batches: Sequence[Batch], step: int, own: TrainStep) -> None:
        """What it does at the run's step `step`, counted from 0, before the run's `own` trains on the batches."""
        if step == self.first:
            self._begin(own)
        if self.begun and (step - self.first) % self.every == 0:
            self.train_step([Batch(batch.images, batch.target, None, None, None, None) for batch in batches], step)

    def measure(self, validator: Validator) -> Metrics:
        """How good it is on val; `remember` then keeps it, if it is the best so far."""
        return validator(self.teacher.network if self.select == "teacher" else self.network)

    def remember(self, measured: Metrics, step: int) -> None:
        """Keep it as it is after `step` steps of the run, if that is the best so far."""
        if measured.miou > self.best.miou:
            self.best = Best(measured.miou, step, _copied(self.network), _copied(self.teacher.network))

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs; nothing before it has begun."""
        if not self.begun:
            return {}
        return {
            "student": self.network.state_dict(),
            "teacher": self.teacher.network.state_dict(),
            "train_step": self.train_step.state_dict(),
            "best": vars(self.best),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if not state:
            return
        self.begun, self.best = True, Best(**state["best"])
        self._load(state["student"], state["teacher"], state["train_step"])

    def _begin(self, own: TrainStep) -> None:
        self.begun = True
        if not self.on_its_own:
            self._load(own.network.state_dict(), own.teacher.network.state_dict(), copy.deepcopy(own.state_dict()))

    def _load(self, student: Weights, teacher: Weights, train_step: dict[str, Any]) -> None:
        self.network.load_state_dict(student)
        self.teacher.network.load_state_dict(teacher)
        self.train_step.load_state(State(step=0, best_miou=-1.0, config={}, **train_step))


def make_baseline(student: Student, config: Config, num_classes: int, world: World) -> Baseline | None:
    """The baseline that `config.train.baseline_every` asks for; None where the run itself is supervised."""
    if not config.train.baseline_every or config.method.supervised_only:
        return None
    return Baseline(student, config, num_classes, world)


def _of_earlier_run(config: Config) -> Path | None:
    """The baseline of the run that this one begins with."""
    place = Path(config.init_from or "") / "checkpoints" / checkpoint.BASELINE
    return place if config.init_from and place.is_dir() else None


def _copied(network: nn.Module) -> Weights:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
