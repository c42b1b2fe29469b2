"""A training run, top to bottom: prepare, step, validate, save, finish."""

from __future__ import annotations

import json
import math
import resource
import statistics
import time
from collections import deque
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskmatch import ops
from maskmatch.config import Config
from maskmatch.data import (
    Dataset,
    Loader,
    check_dataset,
    fingerprint,
    load_dataset,
    make_loader,
    read_pair,
)
from maskmatch.errors import UserError
from maskmatch.evaluation import Validator, predict, save_curves, save_predictions
from maskmatch.method import Teacher
from maskmatch.models import Student, build_student, check_crop, init_from
from maskmatch.signals import StopError, StopSignal
from maskmatch.training import checkpoint, distributed
from maskmatch.training.distributed import World
from maskmatch.training.readback import Readback
from maskmatch.training.run_folder import resume, run_folder, write_config, write_text
from maskmatch.training.schedules import global_batch, resolve
from maskmatch.training.step import TrainStep, make_method
from maskmatch.training.telemetry import Display, MetricsLog

LOG_EVERY = 10  # steps
PICTURES = 6  # validation images in predictions.png


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
                run = prepare(config, student)
            summary = _train(run, stop)
    except RuntimeError as error:
        if lost := distributed.lost_process(error):
            raise lost from error
        raise
    distributed.leave()
    return summary


def _train(run: Run, stop: StopSignal) -> dict[str, Any]:
    steps = run.config.train.steps or 0
    with (
        Display(steps, run.step, quiet=not run.world.leads) as display,
        run.loader,
        closing(run.log) if run.log else nullcontext(),
    ):
        if run.step == steps and run.world.share((run.folder / "summary.json").exists()):
            display.say(f"{run.folder} is complete: all of its {steps} steps are done")
            return json.loads((run.folder / "summary.json").read_text()) if run.world.leads else {}
        for line in (*run.notes, run.headline()):
            display.say(line)
        try:
            if not run.finished_step:
                _after_step(run, display, stop)
            while run.step < steps:
                if run.world.agree(stop.received is not None):
                    raise StopError(stop.received or "a signal to another process")
                started = time.perf_counter()
                _train_step(run)
                run.step_seconds.append(time.perf_counter() - started)
                _after_step(run, display, stop)
        except StopError as signal:
            if run.step != run.saved_step:
                _save(run, display)
            run.world.barrier()  # torchrun ends all when one has ended
            raise StopError(f"{signal} after step {run.step}; go on with --output {run.folder} --resume") from None
    summary = _finish(run, run.log) if run.log else {}
    run.world.barrier()
    if run.world.leads:
        display.say(
            f"mIoU on val: teacher {summary['miou_teacher']:.4f}, student {summary['miou_student']:.4f}, "
            f"best teacher {summary['best_miou']:.4f}; everything is in {run.folder}"
        )
    return summary


def _train_step(run: Run) -> None:
    with run.train_step.phases("data wait"):
        batches = [next(run.loader) for _ in range(run.config.train.accumulate)]
    try:
        run.pending.append(run.train_step(batches, run.step))
    except (ValueError, RuntimeError) as error:  # the latter from torch.compile
        if "more than 1 value per channel" not in str(error):  # BatchNorm after a global pooling
            raise
        got = run.config.train.batch_size
        raise UserError(f"this network's BatchNorm needs train.batch_size of at least 2, got {got}") from error
    run.step += 1
    run.finished_step = False


@dataclass
class Run:
    """All that a run consists of while it goes."""

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
    step: int = 0  # optimizer steps done
    finished_step: bool = True  # whether it has been validated, logged and saved, as far as that was due
    saved_step: int = 0  # of the last checkpoint
    best_miou: float = -1.0
    notes: list[str] = field(default_factory=list)  # lines for the user on how the run was resumed
    step_seconds: list[float] = field(default_factory=list)
    pending: list[dict[str, Tensor]] = field(default_factory=list)  # losses since the last record, on the device
    unread: deque[UnreadRecord] = field(default_factory=deque)

    def headline(self) -> str:
        data, train = self.dataset, self.config.train
        parts = f"{len(data.labeled)} labelled, {len(data.unlabeled)} unlabelled, {len(data.val)} val images"
        backend = ops.current_backend(self.device)
        processes = f" x {self.world.size}" if self.world.size > 1 else ""
        start = f"from step {self.step}" if self.step else "from the start"
        network = getattr(self.student.network, "name", type(self.student.network).__name__)  # smp's have one
        weights = self.student.weights_report or "random weights"
        return (
            f"{data.name}: {parts}; {network}, {weights}; {self.device}{processes}, "
            f"{train.precision}, operators {backend}, loader {self.loader.name}; "
            f"{train.steps} steps {start}; writing to {self.folder}"
        )

    def state(self) -> checkpoint.State:
        return checkpoint.State(
            step=self.step,
            optimizer=self.train_step.optimizer.state_dict(),
            scaler=self.train_step.scaler.state_dict(),
            best_miou=self.best_miou,
            config=asdict(self.config),
            data=self.fingerprint,
            unlogged=self.pending,
            finished_step=self.finished_step,
        )


@dataclass
class UnreadRecord:
    """A record of metrics.jsonl whose losses are still on their way to the host."""

    step: int
    lr: float
    names: list[str]
    losses: Readback  # their means, by `names`
    measured: dict[str, Any]  # by the validation

    def read(self) -> dict[str, Any]:
        losses = dict(zip(self.names, self.losses.read(), strict=True))
        return {"step": self.step, "lr": self.lr, **losses, **self.measured}


def prepare(config: Config, student: Student | None = None) -> Run:
    """Check everything that can be checked before step 1, then build the run."""
    world, device = distributed.join(config.train.device)
    supervised_only = config.method.supervised_only
    with world.leader_first():  # which may draw the data and download weights, and whose errors then stand alone
        dataset = load_dataset(config.data, supervised_only=supervised_only)
        config = resolve(config, len(dataset.labeled if supervised_only else dataset.unlabeled), world.size)
        torch.manual_seed(config.train.seed)
        student = student or build_student(config.model, dataset.num_classes)
        if config.init_from:
            report = init_from(student.network, config.init_from, dataset.num_classes)
            student = replace(student, weights_report=report)
        check_crop(student, config.data.crop_size)
        check_dataset(dataset, supervised_only=supervised_only)
    folder = world.share(run_folder(config) if world.leads else Path())

    network = distributed.synchronize_batchnorm(student.network, world, device)
    student = replace(student, network=network.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    teacher = Teacher(student.network, config.method.ema_momentum or 0.0)
    train_step = TrainStep(student.network, teacher, make_method(config.method, student), config.train, world)
    data = fingerprint(dataset, seed=config.train.seed, global_batch=global_batch(config.train, world.size))
    networks = student.network, teacher.network
    state, notes = world.share(resume(config, data, folder, *networks) if world.leads else (None, []))
    for network in networks:
        world.copy(network)
    if state:
        train_step.optimizer.load_state_dict(state.optimizer)
        train_step.scaler.load_state_dict(state.scaler)

    loader = make_loader(
        dataset,
        config.data,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=(state.step if state else 0) * config.train.accumulate,
        device=device,
        supervised_only=supervised_only,
        rank=world.rank,
        world_size=world.size,
    )
    found = {"loader": loader.name, "num_classes": dataset.num_classes, "class_names": list(dataset.class_names)}
    if world.leads:
        write_config(folder, config, found)
    val = dataset.val[world.rank :: world.size]
    run = Run(
        config=config,
        world=world,
        folder=folder,
        device=device,
        dataset=dataset,
        fingerprint=data,
        student=student,
        teacher=teacher,
        train_step=train_step,
        loader=loader,
        validator=Validator(student, val, dataset.mask_table, dataset.num_classes, device, total=world.sum),
        log=MetricsLog(folder, state.last_record if state else 0) if world.leads else None,
        notes=notes,
    )
    if state:
        run.step = run.saved_step = state.step
        run.finished_step, run.best_miou = state.finished_step, state.best_miou
        run.pending = [{name: loss.to(device) for name, loss in losses.items()} for losses in state.unlogged]
    return run


def _after_step(run: Run, display: Display, stop: StopSignal) -> None:
    """Validate, log and save where this step is due; a signal leaves it all undone, for the resumed run to do."""
    train = run.config.train
    last = run.step == train.steps
    validates = last or run.step % (train.validate_every or 1) == 0
    saves = last or run.step % (train.checkpoint_every or 1) == 0
    measured: dict[str, Any] = {}
    best = False
    if validates:
        with stop.raising() if run.world.size == 1 else nullcontext():  # processes stop together, after it
            student, teacher = run.validator(run.student.network), run.validator(run.teacher.network)
        best = teacher.miou > run.best_miou
        run.best_miou = max(run.best_miou, teacher.miou)
        measured = {
            "miou_student": student.miou,
            "miou_teacher": teacher.miou,
            "iou_student": _finite(student.iou),
            "iou_teacher": _finite(teacher.iou),
        }
        display.say(f"step {run.step}: val mIoU student {student.miou:.4f}, teacher {teacher.miou:.4f}")
    if run.step == 1 or run.step % LOG_EVERY == 0 or validates or saves:
        run.unread.append(_start_record(run, measured))
    _write_records(run, display, wait=last)
    run.finished_step = True
    if saves or best:
        _save(run, display, best=best)


def _save(run: Run, display: Display, *, best: bool = False) -> None:
    _write_records(run, display, wait=True)
    run.saved_step = run.step
    if run.log is None:
        return
    run.log.sync()
    keep = run.config.train.keep_checkpoints
    networks = run.student.network, run.teacher.network
    checkpoint.save(run.folder / "checkpoints", *networks, run.state(), best=best, keep=keep)


def _start_record(run: Run, measured: dict[str, Any]) -> UnreadRecord:
    """The means of the losses since the last record, sent to the host without waiting for them."""
    names = sorted({name for losses in run.pending for name in losses})
    means = [torch.stack([losses[name] for losses in run.pending if name in losses]).mean() for name in names]
    run.pending.clear()
    return UnreadRecord(
        run.step, run.train_step.optimizer.param_groups[0]["lr"], names, Readback(torch.stack(means)), measured
    )


def _write_records(run: Run, display: Display, *, wait: bool) -> None:
    """Log the records whose losses have arrived, all of them with `wait`."""
    while run.unread and (wait or run.unread[0].losses.arrived()):
        record = run.unread.popleft().read()
        display.update(record["step"], record, _images_per_second(run) or 0.0)
        if run.log:
            run.log.write(record)


def _finish(run: Run, log: MetricsLog) -> dict[str, Any]:
    """Pictures and summary.json, of the last step's networks."""
    save_curves(run.folder / "curves.png", log.records)
    pairs = run.dataset.val
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(PICTURES, len(pairs))).round().astype(int)]
    rows = []
    for pair in chosen:
        image, truth = read_pair(pair.image, pair.mask, run.dataset.mask_table)
        label, confidence = predict(run.teacher.network, run.student, image)
        rows.append((image, truth, label, confidence))
    save_predictions(run.folder / "predictions.png", rows, run.dataset.palette, run.dataset.class_names)

    final = next(record for record in reversed(log.records) if "miou_teacher" in record)
    summary = {
        "miou_student": final["miou_student"],
        "miou_teacher": final["miou_teacher"],
        "best_miou": run.best_miou,
        "images_per_second": _images_per_second(run),
        "step_ms": 1e3 * statistics.median(run.step_seconds) if run.step_seconds else None,
        "peak_memory_mb": _peak_memory_mb(run.device),
        "steps": run.config.train.steps,
        "fused": run.config.fused,
        "loader": run.loader.name,
        "skipped_files": [str(path) for path in run.loader.skipped],
        "seed": run.config.train.seed,
    }
    write_text(run.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _images_per_second(run: Run) -> float | None:
    """Labelled and unlabelled images together, waiting for data included, validation and saving not."""
    if not run.step_seconds:
        return None
    streams = 1 if run.config.method.supervised_only else 2
    return streams * global_batch(run.config.train, run.world.size) * len(run.step_seconds) / sum(run.step_seconds)


def _peak_memory_mb(device: torch.device) -> float:
    """Of the device, or of the process where that is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _finite(values: list[float]) -> list[float | None]:
    """JSON has no NaN: null for classes that do not occur."""
    return [None if math.isnan(value) else value for value in values]
