"""All that a run consists of while it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from maskmatch import ops
from maskmatch.common.batch import Batch
from maskmatch.config import Config, saved
from maskmatch.data import Dataset, Loader
from maskmatch.method import Teacher
from maskmatch.metrics import Validator
from maskmatch.models import Student
from maskmatch.run_files import checkpoint
from maskmatch.training.baseline import Baseline
from maskmatch.training.distributed import Vote, World
from maskmatch.training.pseudo_label_watch import CollapseWatch
from maskmatch.training.records import Recorder
from maskmatch.training.remedies import Remedies
from maskmatch.training.schedules import global_batch, lr_report
from maskmatch.training.speed import Speed
from maskmatch.training.step import TrainStep
from maskmatch.training.telemetry import MetricsLog

LOG_EVERY = 10  # steps


@dataclass
class Run:
    """Built by `maskmatch.training.build`; the fields from `step` on change while it goes."""

    config: Config
    world: World
    folder: Path
    device: torch.device
    dataset: Dataset
    fingerprint: dict[str, Any]  # of what the batches follow from
    student: Student
    teacher: Teacher
    train_step: TrainStep
    loader: Loader
    validator: Validator
    log: MetricsLog | None  # of the leading process
    recorder: Recorder
    watch: CollapseWatch
    speed: Speed
    without_dali: str | None  # why the torch loader takes its place
    without_graph: str | None  # why the steps on a GPU are no CUDA graphs
    baseline: Baseline | None
    remedies: Remedies | None
    notes: list[str]  # lines for the user on the data and on how the run was resumed
    step: int = 0  # optimizer steps done
    finished_step: bool = True  # whether it has been validated, logged and saved, as far as that was due
    saved_step: int = 0  # of the last checkpoint
    best_miou: float = -1.0  # of the network that `train.select` names
    best_step: int = 0
    batches: list[Batch] = field(default_factory=list)  # of the last step
    vote: Vote | None = None  # of the processes, on whether to stop

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.config.train.steps or 0

    @property
    def is_over(self) -> bool:
        """Whether no step is left to take."""
        return self.step == self.steps or (self.remedies is not None and self.remedies.stopped)

    @staticmethod
    def is_logged(step: int) -> bool:
        """Whether a record follows a step, counted from 0, in any case."""
        return step == 0 or (step + 1) % LOG_EVERY == 0

    def headline(self) -> str:
        """The first line of a run: what is trained, with what, on what."""
        data, train = self.dataset, self.config.train
        parts = f"{len(data.labeled)} labelled, {len(data.unlabeled)} unlabelled, {len(data.val)} val images"
        backend = ops.current_backend(self.device)
        processes = f" x {self.world.size}" if self.world.size > 1 else ""
        start = f"from step {self.step}" if self.step else "from the start"
        lr = lr_report(train, global_batch(train, self.world.size))
        network = getattr(self.student.network, "name", type(self.student.network).__name__)  # smp's have one
        weights = self.student.weights_report or "random weights"
        instead = f" ({self.without_dali})" if self.without_dali else ""
        graph = f", no CUDA graph ({self.without_graph})" if self.without_graph else ""
        graph = ", steps as CUDA graphs" if self.train_step.graphs else graph
        return (
            f"{data.name}: {parts}; {network}, {weights}; {self.device}{processes}, "
            f"{train.precision}, operators {backend}{graph}, loader {self.loader.name}{instead}; "
            f"{lr}, {train.steps} steps {start}; writing to {self.folder}"
        )

    def state(self) -> checkpoint.State:
        """What a checkpoint keeps beside the networks; to be called by all processes."""
        return checkpoint.State(
            step=self.step,
            best_miou=self.best_miou,
            best_step=self.best_step,
            config=saved(self.config),
            data=self.fingerprint,
            unlogged=self.recorder.state_dict(),
            finished_step=self.finished_step,
            baseline=self.baseline.state_dict() if self.baseline else {},
            remedies=self.remedies.state_dict() if self.remedies else {},
            **self.train_step.state_dict(),
        )

    def load_state(self, state: checkpoint.State) -> None:
        """Go on from there."""
        self.step = self.saved_step = state.step
        self.finished_step, self.best_miou, self.best_step = state.finished_step, state.best_miou, state.best_step
        self.train_step.load_state(state)
        if self.baseline:
            self.baseline.load_state_dict(state.baseline)
        if self.remedies:
            self.remedies.load_state_dict(state.remedies)
        self.recorder.load_state_dict(state.unlogged)
