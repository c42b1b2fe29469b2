"""The end of a run: pictures, summary.json, and the last line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskmatch.common.drawing import spared
from maskmatch.common.text_files import write_text
from maskmatch.data import read_pair
from maskmatch.inference.modes import predict
from maskmatch.metrics import save_curves, save_predictions
from maskmatch.metrics.bootstrap import with_error
from maskmatch.training.handover import hand_over
from maskmatch.training.last_line import last_line
from maskmatch.training.run import Run
from maskmatch.training.telemetry import Display, MetricsLog

NETWORKS = ("teacher", "student")
PICTURES = 6  # validation images in predictions.png


def finish(run: Run, display: Display) -> dict[str, Any]:
    """Write what a complete run has; returns what summary.json holds, in the leading process only."""
    summary: dict[str, Any] = {}
    handed = hand_over(run)
    if run.log:
        _draw(run, run.log, display)
        summary = _summary(run, run.log)
        if handed:
            summary |= handed.record()
        # By being there it says that the run is complete.
        write_text(run.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    run.world.barrier()
    if run.world.leads:
        records = run.log.records if run.log else []
        display.say(f"{_figures(run, records)}; everything is in {run.folder}")
        if line := handed.line() if handed else last_line(run, records):
            display.say(line)
    return summary


def _figures(run: Run, records: Sequence[dict[str, Any]]) -> str:
    """Of the last step and of the best, before anything is handed over."""
    final, select = _final(records), run.config.train.select
    best: dict[str, Any] = next((one for one in reversed(records) if one["step"] == run.best_step), {})
    teacher, student = (with_error(final[f"miou_{name}"], final.get(f"miou_error_{name}")) for name in NETWORKS)
    at_best = with_error(run.best_miou, best.get(f"miou_error_{select}"))
    return f"mIoU on val: teacher {teacher}, student {student}; best {select} {at_best}, step {run.best_step}"


def _final(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last validation."""
    return next(record for record in reversed(records) if "miou_teacher" in record)


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


def _summary(run: Run, log: MetricsLog) -> dict[str, Any]:
    final = _final(log.records)
    return {
        "miou_student": final["miou_student"],
        "miou_teacher": final["miou_teacher"],
        "best_miou": run.best_miou,
        "best_step": run.best_step,
        "select": run.config.train.select,
        "skipped_steps": final["skipped_steps"],
        **run.speed.summary(),
        "steps": run.step,
        "fused": run.config.fused,
        "loader": run.loader.name,
        "skipped_files": [str(path) for path in run.loader.skipped],
        "seed": run.config.train.seed,
    }
