"""What follows a step where it is due: validation, a record, a checkpoint, a look whether the run is well."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from maskmatch.common.errors import UserError
from maskmatch.common.json_values import finite
from maskmatch.common.signals import StopSignal
from maskmatch.metrics import Metrics
from maskmatch.run_files import checkpoint
from maskmatch.training.run import Run
from maskmatch.training.telemetry import Display

MAX_SKIPPED_STEPS = 20  # in a row, before the run ends


def after_step(run: Run, display: Display, stop: StopSignal) -> None:
    """Validate, log and save where this step is due; a signal leaves it all undone, for the resumed run to do."""
    train = run.config.train
    validates = run.is_over or run.step % (train.validate_every or 1) == 0
    saves = run.is_over or run.step % (train.checkpoint_every or 1) == 0
    with run.speed.paused() if validates or saves else nullcontext():
        measured, best = _validate(run, display, stop) if validates else ({}, False)
        saves = saves or run.is_over  # since val has not risen for long
        if run.is_logged(run.step - 1) or validates or saves:
            run.recorder.start(run.step, measured)
        _write_records(run, display, wait=run.is_over or run.remedies is not None)  # acting comes at a step's end
        run.finished_step = True
        if saves or best:
            save(run, display, best=best)


def _validate(run: Run, display: Display, stop: StopSignal) -> tuple[dict[str, Any], bool]:
    """What a record says of both networks on val, and whether the selected one is the best so far."""
    with stop.raising() if run.world.size == 1 else nullcontext():  # processes stop together, after it
        student, teacher = run.validator(run.student.network), run.validator(run.teacher.network)
        alone = run.baseline.measure(run.validator) if run.baseline and run.baseline.begun else None
    labels_alone = f", labels alone {alone.text()}" if alone else ""
    display.say(f"step {run.step}: val mIoU student {student.text()}, teacher {teacher.text()}{labels_alone}")
    if run.baseline and alone:
        run.baseline.remember(alone, run.step)
    selected = teacher.miou if run.config.train.select == "teacher" else student.miou
    best = selected > run.best_miou
    if best:
        run.best_miou, run.best_step = selected, run.step
    measured: dict[str, Any] = {
        "miou_student": student.miou,
        "miou_teacher": teacher.miou,
        "miou_error_student": finite(student.error),
        "miou_error_teacher": finite(teacher.error),
        "iou_student": [finite(iou) for iou in student.iou],
        "iou_teacher": [finite(iou) for iou in teacher.iou],
    }
    if alone:
        measured |= {"miou_baseline": alone.miou, "miou_error_baseline": finite(alone.error)}
    return measured | _act_on_validation(run, selected, alone, display), best


def _act_on_validation(run: Run, selected: float, alone: Metrics | None, display: Display) -> dict[str, Any]:
    if run.remedies is None:
        return {}
    best_step = max(run.best_step, run.baseline.best.step if run.baseline else 0)
    lines = run.remedies.on_validation(selected, alone.miou if alone else None, best_step, run.step)
    return _acted(lines, run, display)


def _acted(lines: list[str], run: Run, display: Display) -> dict[str, Any]:
    """Say what the run has done, and what a record says of it."""
    for line in lines:
        display.say(f"acted, step {run.step}: {line}")
    return {"acted": lines} if lines else {}


def save(run: Run, display: Display, *, best: bool = False) -> None:
    """Write a checkpoint of this step; to be called by all processes."""
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
        news = run.watch.news(record.steps, record.counts) if record.counts else {}
        for warning in news.values():
            display.say(f"warning, step {step}: {warning}")
        if run.remedies and (acted := run.remedies.on_warnings(list(news), step)):
            record.values["acted"] = record.values.get("acted", []) + _acted(acted, run, display)["acted"]
        display.update(step, record.values, speed["images_per_second"] or 0.0)
        if run.log:
            run.log.write(record.values)
            run.log.write_unrepeatable(step, speed)
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
