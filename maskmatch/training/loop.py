"""A training run, top to bottom: prepare, step, validate, save, finish."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskmatch import ops
from maskmatch.common.batch import Batch
from maskmatch.common.drawing import spared
from maskmatch.common.errors import UserError
from maskmatch.common.signals import StopError, StopSignal
from maskmatch.common.text_files import write_text
from maskmatch.config import Config, saved, validate
from maskmatch.data import (
    Dataset,
    Loader,
    check_dataset,
    choose_loader,
    fingerprint,
    format_palette,
    load_dataset,
    make_loader,
    measurable,
    overlaps,
    read_pair,
)
from maskmatch.inference.modes import predict
from maskmatch.method import Teacher
from maskmatch.metrics import Validator, save_curves, save_predictions
from maskmatch.models import Student, build_student, check_crop, check_patches, init_from
from maskmatch.run_files import checkpoint
from maskmatch.run_files.config_file import write_config
from maskmatch.run_files.versions import write_environment
from maskmatch.training import distributed
from maskmatch.training.distributed import World
from maskmatch.training.pseudo_label_watch import CollapseWatch, PseudoLabelCounter
from maskmatch.training.records import LOG_EVERY, Recorder, finite
from maskmatch.training.run_folder import resume, run_folder
from maskmatch.training.schedules import global_batch, lr_report, resolve
from maskmatch.training.speed import Speed
from maskmatch.training.step import TrainStep, make_method
from maskmatch.training.telemetry import Display, MetricsLog

MAX_SKIPPED_STEPS = 20  # in a row, before the run ends
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
        for line in (run.headline(), *run.notes):
            display.say(line)
        try:
            if not run.finished_step:
                _after_step(run, display, stop)
            run.speed.start()
            while run.step < steps:
                if run.world.agree(stop.received is not None):
                    raise StopError(stop.received or "a signal to another process")
                take_step(run)
                run.speed.step()
                _after_step(run, display, stop)
        except StopError as signal:
            if run.step != run.saved_step:
                _save(run, display)
            run.world.barrier()  # torchrun ends all when one has ended
            raise StopError(f"{signal} after step {run.step}; go on with --output {run.folder} --resume") from None
    summary = _finish(run, run.log, display) if run.log else {}
    run.world.barrier()
    if run.world.leads:
        display.say(
            f"mIoU on val: teacher {summary['miou_teacher']:.4f}, student {summary['miou_student']:.4f}; best "
            f"{summary['select']} {summary['best_miou']:.4f}, step {summary['best_step']}; "
            f"everything is in {run.folder}"
        )
    return summary


def take_step(run: Run) -> None:
    """Wait for the next batch and train on it."""
    with run.train_step.phases("data wait"), run.speed.waiting():
        run.batches = [next(run.loader) for _ in range(run.config.train.accumulate)]
    try:
        run.recorder.pending.append(run.train_step(run.batches, run.step, compare=_is_logged(run.step)))
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
    recorder: Recorder
    watch: CollapseWatch
    speed: Speed
    without_dali: str | None  # why the torch loader takes its place
    step: int = 0  # optimizer steps done
    finished_step: bool = True  # whether it has been validated, logged and saved, as far as that was due
    saved_step: int = 0  # of the last checkpoint
    best_miou: float = -1.0  # of the network that `train.select` names
    best_step: int = 0
    notes: list[str] = field(default_factory=list)  # lines for the user on the data and on how the run was resumed
    batches: list[Batch] = field(default_factory=list)  # of the last step

    def headline(self) -> str:
        data, train = self.dataset, self.config.train
        parts = f"{len(data.labeled)} labelled, {len(data.unlabeled)} unlabelled, {len(data.val)} val images"
        backend = ops.current_backend(self.device)
        processes = f" x {self.world.size}" if self.world.size > 1 else ""
        start = f"from step {self.step}" if self.step else "from the start"
        lr = lr_report(train, global_batch(train, self.world.size))
        network = getattr(self.student.network, "name", type(self.student.network).__name__)  # smp's have one
        weights = self.student.weights_report or "random weights"
        instead = f" ({self.without_dali})" if self.without_dali else ""
        return (
            f"{data.name}: {parts}; {network}, {weights}; {self.device}{processes}, "
            f"{train.precision}, operators {backend}, loader {self.loader.name}{instead}; "
            f"{lr}, {train.steps} steps {start}; writing to {self.folder}"
        )

    def state(self) -> checkpoint.State:
        return checkpoint.State(
            step=self.step,
            optimizer=self.train_step.optimizer.state_dict(),
            scaler=self.train_step.scaler.state_dict(),
            best_miou=self.best_miou,
            best_step=self.best_step,
            config=saved(self.config),
            data=self.fingerprint,
            head=self.train_step.head.state_dict() if self.train_step.head else {},
            class_balance=self.train_step.method.class_balance.state_dict(),
            unlogged=self.recorder.state_dict(),
            finished_step=self.finished_step,
        )


def prepare(config: Config, student: Student | None = None) -> Run:
    """Check everything that can be checked before step 1, then build the run."""
    validate(config)
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
        crop = check_crop(student, config.data.crop)
        if not supervised_only and (config.method.lcr or config.method.ablation.reconstruction):
            check_patches(student, crop, config.method.patch_size)
        # Refused here, before there is a folder.
        choice = choose_loader(config.data.loader, device, only_preferred=config.loader_from_file)
        method = make_method(config.method, student, dataset.num_classes)
        checked = check_dataset(dataset, supervised_only=supervised_only, skip=config.data.on_error == "skip")
        dataset = measurable(dataset, checked.left_out)

    network = distributed.synchronize_batchnorm(student.network, world, device)
    student = replace(student, network=network.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    teacher = Teacher(student.network, config.method.ema_momentum or 0.0)
    counter = PseudoLabelCounter(dataset.num_classes, config.method.threshold, device)
    train_step = TrainStep(student.network, teacher, method, config.train, world, counter)
    folder = world.share(run_folder(config) if world.leads else Path())  # from here on a resume alone is refused
    batch = global_batch(config.train, world.size)
    data = fingerprint(dataset, seed=config.train.seed, global_batch=batch, masks=checked.masks)
    networks = student.network, teacher.network
    state, notes = world.share(resume(config, data, folder, *networks) if world.leads else (None, []))
    for network in networks:
        world.copy(network)
    if state:
        train_step.optimizer.load_state_dict(state.optimizer)
        train_step.scaler.load_state_dict(state.scaler)
        if train_step.head:
            train_step.head.load_state_dict(state.head)
        if state.class_balance:
            method.class_balance.load_state_dict(state.class_balance)

    def measured(batch: int) -> bool:
        step = batch // config.train.accumulate
        return _is_logged(step) and len(method.weights(step)) > 1

    loader = make_loader(
        dataset,
        replace(config.data, loader=choice.name),
        global_batch=config.train.batch_size * world.size,
        seed=config.train.seed,
        start_step=(state.step if state else 0) * config.train.accumulate,
        device=device,
        supervised_only=supervised_only,
        rank=world.rank,
        world_size=world.size,
        measured=measured,
        left_out=[error.path for error in checked.left_out],
    )
    found = {
        "loader": loader.name,
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "palette": format_palette(dataset.palette),
    }
    if world.leads:
        write_config(folder, config, found)
        write_environment(folder)
    val = dataset.val[world.rank :: world.size]
    left_out = (f"left out: {error}" for error in checked.left_out)
    warnings = [*dataset.notes, *overlaps(dataset), *left_out] if world.leads else []
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
        log=MetricsLog(folder, state.last_record if state else 0, dataset.class_names) if world.leads else None,
        recorder=Recorder(train_step),
        watch=CollapseWatch(dataset.class_names, config.method.threshold),
        speed=Speed(
            images_a_step=(1 if supervised_only else 2) * global_batch(config.train, world.size),
            device=device,
            steps=(config.train.steps or 0) - (state.step if state else 0),
        ),
        without_dali=choice.instead,
        notes=[*(f"warning: {line}" for line in warnings), *notes],
    )
    if state:
        run.step = run.saved_step = state.step
        run.finished_step, run.best_miou, run.best_step = state.finished_step, state.best_miou, state.best_step
        run.recorder.load_state_dict(state.unlogged)
    return run


def _after_step(run: Run, display: Display, stop: StopSignal) -> None:
    """Validate, log and save where this step is due; a signal leaves it all undone, for the resumed run to do."""
    train = run.config.train
    last = run.step == train.steps
    validates = last or run.step % (train.validate_every or 1) == 0
    saves = last or run.step % (train.checkpoint_every or 1) == 0
    with run.speed.paused() if validates or saves else nullcontext():
        measured, best = _validate(run, display, stop) if validates else ({}, False)
        if _is_logged(run.step - 1) or validates or saves:
            run.recorder.start(run.step, measured)
        _write_records(run, display, wait=last)
        run.finished_step = True
        if saves or best:
            _save(run, display, best=best)


def _validate(run: Run, display: Display, stop: StopSignal) -> tuple[dict[str, Any], bool]:
    """What a record says of both networks on val, and whether the selected one is the best so far."""
    with stop.raising() if run.world.size == 1 else nullcontext():  # processes stop together, after it
        student, teacher = run.validator(run.student.network), run.validator(run.teacher.network)
    display.say(f"step {run.step}: val mIoU student {student.miou:.4f}, teacher {teacher.miou:.4f}")
    selected = teacher.miou if run.config.train.select == "teacher" else student.miou
    best = selected > run.best_miou
    if best:
        run.best_miou, run.best_step = selected, run.step
    return {
        "miou_student": student.miou,
        "miou_teacher": teacher.miou,
        "iou_student": [finite(iou) for iou in student.iou],
        "iou_teacher": [finite(iou) for iou in teacher.iou],
    }, best


def _save(run: Run, display: Display, *, best: bool = False) -> None:
    _write_records(run, display, wait=True)
    run.saved_step, state = run.step, run.state()
    if run.log is None:
        return
    run.log.sync()
    keep = run.config.train.keep_checkpoints
    checkpoint.save(run.folder / "checkpoints", run.student.network, run.teacher.network, state, best=best, keep=keep)


def _write_records(run: Run, display: Display, *, wait: bool) -> None:
    """Log the records whose numbers have arrived, all of them with `wait`, and look whether the run is well."""
    for record in run.recorder.finished(wait=wait):
        step = record.values["step"]
        speed = run.speed.recent(record.steps)
        display.update(step, record.values, speed["images_per_second"] or 0.0)
        if run.log:
            run.log.write(record.values)
            run.log.write_unrepeatable(step, speed)
        for warning in run.watch(record.steps, record.counts) if record.counts else []:
            display.say(f"warning, step {step}: {warning}")
        if record.skipped_in_a_row >= MAX_SKIPPED_STEPS:
            raise UserError(_fault(run, record.skipped_in_a_row))


def _fault(run: Run, skipped: int) -> str:
    """Why no step was taken any more: which loss, and with which images."""
    fault = run.train_step.find_fault(run.batches, run.step - 1)
    lines = f"the loss or a gradient was not finite in {skipped} steps in a row, which were skipped"
    if fault is None:
        return f"{lines}; step {run.step} by itself is in order: try a lower --train.lr"
    name, what = fault
    first = (run.step - 1) * run.config.train.accumulate
    steps = range(first, first + run.config.train.accumulate)
    images = [str(path) for step in steps for path in run.loader.images(step, labeled=name == "loss_x")]
    return f"{lines}: in step {run.step} {what} in {name}, with {', '.join(images)}; try a lower --train.lr" + (
        " or --train.precision bf16" if run.config.train.precision == "fp16" else ""
    )


def _is_logged(step: int) -> bool:
    """Of a step, counted from 0."""
    return step == 0 or (step + 1) % LOG_EVERY == 0


def _draw(run: Run, log: MetricsLog, display: Display) -> None:
    """Curves, and predictions of the last step's teacher; one that cannot be drawn is a line."""
    curves, predictions = run.folder / "curves.png", run.folder / "predictions.png"
    with spared(curves, display.say):
        save_curves(curves, log.records)
    with spared(predictions, display.say):
        pairs = run.dataset.val
        chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(PICTURES, len(pairs))).round().astype(int)]
        rows = []
        for pair in chosen:
            image, truth = read_pair(pair.image, pair.mask, run.dataset.mask_table)
            label, confidence = predict(run.teacher.network, run.student, image)
            rows.append((image, truth, label, confidence))
        save_predictions(predictions, rows, run.dataset.palette, run.dataset.class_names)


def _finish(run: Run, log: MetricsLog, display: Display) -> dict[str, Any]:
    """Pictures and summary.json, which says by being there that the run is complete."""
    _draw(run, log, display)
    final = next(record for record in reversed(log.records) if "miou_teacher" in record)
    summary = {
        "miou_student": final["miou_student"],
        "miou_teacher": final["miou_teacher"],
        "best_miou": run.best_miou,
        "best_step": run.best_step,
        "select": run.config.train.select,
        "skipped_steps": final["skipped_steps"],
        **run.speed.summary(),
        "steps": run.config.train.steps,
        "fused": run.config.fused,
        "loader": run.loader.name,
        "skipped_files": [str(path) for path in run.loader.skipped],
        "seed": run.config.train.seed,
    }
    write_text(run.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary
