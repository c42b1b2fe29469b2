"""Runs as training leaves them, with records of four steps."""

import json
import shutil

import pytest

NAN = float("nan")


def records(classes=3, **changed):
    """Lines of metrics.jsonl: a warm-up, then pseudo-labels; two validations."""
    lines = []
    for step in range(1, 5):
        line = {"step": step, "lr": 0.01 / step, "lr_head": 0.01 / step, "loss": 1.0 / step, "loss_x": 0.8 / step}
        if step > 1:
            line |= {"loss_u": 0.1, "coverage": 0.2 * step, "accuracy": 0.9, "agreement": 0.8}
            line |= {"coverage_by_class": [0.2 * step] * classes, "accuracy_by_class": [None] + [0.9] * (classes - 1)}
        if step % 2 == 0:
            line |= {"miou_student": 0.1 * step, "miou_teacher": 0.15 * step}
            line |= {"iou_student": [0.1 * step] * classes, "iou_teacher": [None] + [0.15 * step] * (classes - 1)}
        lines.append(line | {"skipped_steps": 0} | changed)
    return lines


@pytest.fixture(scope="session")
def record():
    """A function that writes `records` and a summary into the folder of a run."""

    def write(folder, lines=None, summary=True):
        lines = records() if lines is None else lines
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if summary:
            speed = {"images_per_second": 12.5, "step_ms": 100.0, "data_wait_ms": 20.0, "peak_memory_mb": 900.0}
            (folder / "summary.json").write_text(json.dumps(speed | {"steps": 4, "skipped_files": []}))
        return folder

    return write


@pytest.fixture
def recorded_run(run, record, tmp_path):
    """A copy of the run on `photos`, with records; a test may change it."""
    return record(shutil.copytree(run, tmp_path / "run", symlinks=True))
