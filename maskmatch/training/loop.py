"""A training run, top to bottom: prepare, step, validate, save, finish."""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.optim import Optimizer

from maskmatch import ops
from maskmatch.batch import Batch
from maskmatch.config import Config
from maskmatch.data import (
    Dataset,
    Loader,
    check_dataset,
    check_fingerprint,
    fingerprint,
    load_dataset,
    make_loader,
    read_image,
    read_mask,
)
from maskmatch.errors import UserError
from maskmatch.evaluation import Validator, predict, save_curves, save_predictions
from maskmatch.method import MaskMatch, Teacher
from maskmatch.models import Student, build_student, check_crop
from maskmatch.training import checkpoint
from maskmatch.training.run_folder import resume_path, run_folder
from maskmatch.training.schedules import make_optimizer, resolve, set_learning_rate
from maskmatch.training.telemetry import Display, MetricsLog

LOG_EVERY = 10  # steps; reading the losses is the only time the loop waits for the device
PICTURES = 6  # validation images in predictions.png
FREE_ON_RESUME = {
    *("steps", "epochs", "validate_every", "checkpoint_every", "warmup_steps", "ramp_steps", "ema_momentum"),
    *("device", "workers", "loader", "num_classes", "class_names", "root", "encoder_weights"),
}


def train(config: Config, student: Student | None = None) -> dict[str, Any]:
    """Run a whole training and return what summary.json holds.

    Args:
        config: every option.
        student: a network of your own, from `maskmatch.models.from_module`, in the place of `config.model`'s.

    Raises:
        UserError: something in the configuration, the data or the output folder is wrong.
    """
    with nullcontext() if config.fused else ops.use_backend("reference"):
        return _train(prepare(config, student))


def _train(run: Run) -> dict[str, Any]:
    steps = run.config.train.steps or 0
    if run.step == steps and (run.folder / "summary.json").exists():
        run.log.close()
        run.loader.close()
        print(f"{run.folder} is complete: all of its {steps} steps are done")
        complete: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
        return complete
    with Display(steps, run.step) as display, run.loader:
        display.say(run.headline())
        while run.step < steps:
            started = time.perf_counter()
            _train_step(run)
            run.step_seconds.append(time.perf_counter() - started)
            _after_step(run, display)
    summary = _finish(run)
    run.log.close()
    display.say(
        f"mIoU on val: teacher {summary['miou_teacher']:.4f}, student {summary['miou_student']:.4f}, "
        f"best teacher {summary['best_miou']:.4f}; everything is in {run.folder}"
    )
    return summary


def _train_step(run: Run) -> None:
    batch = next(run.loader)
    try:
        run.train_step(batch)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # BatchNorm after a global pooling
            raise
        got = run.config.train.batch_size
        raise UserError(f"this network's BatchNorm needs train.batch_size of at least 2, got {got}") from error


@dataclass
class Run:
    """All that a run consists of while it goes."""

    config: Config
    folder: Path
    device: torch.device
    dataset: Dataset
    fingerprint: dict[str, Any]  # of what the batches follow from
    student: Student
    teacher: Teacher
    method: MaskMatch
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    loader: Loader
    validator: Validator
    log: MetricsLog
    step: int  # optimizer steps done
    best_miou: float
    step_seconds: list[float]
    pending: list[dict[str, Tensor]]  # losses of the steps since the last record, still on the device

    def headline(self) -> str:
        data, train = self.dataset, self.config.train
        parts = f"{len(data.labeled)} labelled, {len(data.unlabeled)} unlabelled, {len(data.val)} val images"
        backend = ops.current_backend(self.device)
        start = f"from step {self.step}" if self.step else "from the start"
        network = getattr(self.student.network, "name", type(self.student.network).__name__)  # smp's have one
        weights = self.student.weights_report or "random weights"
        return (
            f"{data.name}: {parts}; {network}, {weights}; {self.device}, "
            f"{train.precision}, operators {backend}, loader {self.loader.name}; "
            f"{train.steps} steps {start}; writing to {self.folder}"
        )

    def train_step(self, batch: Batch) -> None:
        """Forward and backward of every branch, one optimizer step, one step of the teacher."""
        train = self.config.train
        torch.manual_seed((train.seed << 32) + self.step)  # dropout depends on the step, not on what ran before
        set_learning_rate(self.optimizer, self.step, train)
        network, teacher = self.student.network.train(), self.teacher
        losses: dict[str, Tensor] = {}
        with _autocast(self.device, train.precision):
            pseudo = None
            if self.method.ramp(self.step) > 0:
                pseudo = self.method.pseudo_labels(teacher, batch)
                losses["coverage"] = self.method.coverage(pseudo)
            for name, weight, loss in self.method.branches(network, teacher, batch, self.step, pseudo):
                self.scaler.scale(weight * loss).backward()
                losses[name] = loss.detach()
                losses["loss"] = losses.get("loss", 0) + weight * loss.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        teacher.update(network, self.step)
        self.pending.append(losses)
        self.step += 1

    def state(self) -> checkpoint.State:
        return checkpoint.State(
            step=self.step,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            best_miou=self.best_miou,
            config=asdict(self.config),
            data=self.fingerprint,
        )


def prepare(config: Config, student: Student | None = None) -> Run:
    """Check everything that can be checked before step 1, then build the run."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("training runs as one process as yet, got WORLD_SIZE > 1: start it without torchrun")
    device = _device(config.train.device)
    supervised_only = config.method.supervised_only
    dataset = load_dataset(config.data, supervised_only=supervised_only)
    config = resolve(config, len(dataset.labeled if supervised_only else dataset.unlabeled))
    torch.manual_seed(config.train.seed)
    student = student or build_student(config.model, dataset.num_classes)
    check_crop(student, config.data.crop_size)
    check_dataset(dataset, supervised_only=supervised_only)
    folder = run_folder(config)

    network = student.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = Teacher(network, config.method.ema_momentum or 0.0)
    optimizer = make_optimizer(network, config.train)
    scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
    found_data = fingerprint(dataset, seed=config.train.seed, global_batch=config.train.batch_size)
    step, best_miou = 0, -1.0
    if path := resume_path(config, folder):
        state = checkpoint.load(path, network, teacher.network)
        check_same_run(state.config, config, path)
        if state.data is not None:
            check_fingerprint(state.data, found_data)
        optimizer.load_state_dict(state.optimizer)
        scaler.load_state_dict(state.scaler)
        step, best_miou = state.step, state.best_miou

    loader = make_loader(
        dataset,
        config.data,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=step,
        device=device,
        supervised_only=supervised_only,
    )
    found = {"loader": loader.name, "num_classes": dataset.num_classes, "class_names": list(dataset.class_names)}
    _write_config(folder, config, found)
    return Run(
        config=config,
        folder=folder,
        device=device,
        dataset=dataset,
        fingerprint=found_data,
        student=student,
        teacher=teacher,
        method=MaskMatch(
            config.method,
            mean=student.mean,
            std=student.std,
            size_multiple=student.size_multiple,
            min_size=student.min_size,
            align_corners=student.align_corners,
        ),
        optimizer=optimizer,
        scaler=scaler,
        loader=loader,
        validator=Validator(student, dataset.val, dataset.mask_table, dataset.num_classes, device),
        log=MetricsLog(folder, step),
        step=step,
        best_miou=best_miou,
        step_seconds=[],
        pending=[],
    )


def check_same_run(saved: dict[str, Any], config: Config, path: Path) -> None:
    """Refuse to resume with what would make it another run. Lengths and intervals may change."""
    for part, options in asdict(config).items():
        if not isinstance(options, dict):
            continue
        for name, value in options.items():
            was = saved[part].get(name, value)  # an option that the run did not know yet
            if name not in FREE_ON_RESUME and was != value:
                raise UserError(
                    f"{path} was written with {part}.{name} = {was}, got {value}: another run cannot resume it"
                )


def _after_step(run: Run, display: Display) -> None:
    """Log, validate and save where this step is due."""
    train = run.config.train
    last = run.step == train.steps
    validates = last or run.step % (train.validate_every or 1) == 0
    saves = last or run.step % (train.checkpoint_every or 1) == 0
    record: dict[str, Any] = {}
    if run.step == 1 or run.step % LOG_EVERY == 0 or validates or saves:
        record = _record(run)
        display.update(run.step, record, _images_per_second(run) or 0.0)
    best = False
    if validates:
        student, teacher = run.validator(run.student.network), run.validator(run.teacher.network)
        best = teacher.miou > run.best_miou
        run.best_miou = max(run.best_miou, teacher.miou)
        record |= {
            "miou_student": student.miou,
            "miou_teacher": teacher.miou,
            "iou_student": _finite(student.iou),
            "iou_teacher": _finite(teacher.iou),
        }
        display.say(f"step {run.step}: val mIoU student {student.miou:.4f}, teacher {teacher.miou:.4f}")
    if record:
        run.log.write(record)
    if saves or best:
        checkpoints = run.folder / "checkpoints"
        checkpoint.save(checkpoints, run.student.network, run.teacher.network, run.state(), best=best)


def _record(run: Run) -> dict[str, Any]:
    """Means of the losses since the last record, read from the device at once."""
    names = sorted({name for losses in run.pending for name in losses})
    means = [torch.stack([losses[name] for losses in run.pending if name in losses]).mean() for name in names]
    run.pending.clear()
    values = torch.stack([mean.float() for mean in means]).tolist()
    return {
        "step": run.step,
        "lr": run.optimizer.param_groups[0]["lr"],
        **dict(zip(names, values, strict=True)),
    }


def _finish(run: Run) -> dict[str, Any]:
    """Pictures and summary.json, of the last step's networks."""
    save_curves(run.folder / "curves.png", run.log.records)
    pairs = run.dataset.val
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(PICTURES, len(pairs))).round().astype(int)]
    rows = []
    for pair in chosen:
        image, truth = read_image(pair.image), read_mask(pair.mask, run.dataset.mask_table)
        label, confidence = predict(run.teacher.network, run.student, image)
        rows.append((image, truth, label, confidence))
    save_predictions(run.folder / "predictions.png", rows, run.dataset.palette, run.dataset.class_names)

    final = next(record for record in reversed(run.log.records) if "miou_teacher" in record)
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
        "seed": run.config.train.seed,
    }
    _write_text(run.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _images_per_second(run: Run) -> float | None:
    """Labelled and unlabelled images together, waiting for data included, validation and saving not."""
    if not run.step_seconds:
        return None
    streams = 1 if run.config.method.supervised_only else 2
    return streams * run.config.train.batch_size * len(run.step_seconds) / sum(run.step_seconds)


def _peak_memory_mb(device: torch.device) -> float:
    """Of the device, or of the process where that is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"train.device must be auto, cpu, cuda or cuda:N, got {name}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"train.device is {name}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    # Every weight is used once a forward, and a cached cast would outlive the backward of its branch.
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32", cache_enabled=False)


def _finite(values: list[float]) -> list[float | None]:
    """JSON has no NaN: null for classes that do not occur."""
    return [None if math.isnan(value) else value for value in values]


def _write_config(folder: Path, config: Config, found: dict[str, Any]) -> None:
    """config.yaml reproduces the run with --config, into another folder; `found` is what `data` was resolved to."""
    options = asdict(config)
    del options["output"], options["resume"]
    options["data"] |= found
    _write_text(folder / "config.yaml", yaml.safe_dump(options, sort_keys=False))


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    os.replace(beside, path)
