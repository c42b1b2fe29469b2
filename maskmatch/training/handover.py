"""What a run with a supervised-only baseline hands over at its end: the better of the two, and a line that says so.

The one with the higher mIoU on val is better, however small the difference is. A val of 4 to 30 images seldom tells
apart what differs by two points, so a rule that asked to be sure would hand over the same of the two nearly always,
whatever val says; and each has been measured equally often, so that neither had more chances of a lucky figure. How
sure it is, the line says.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from maskmatch.common.json_values import finite
from maskmatch.data.listing.class_names import called
from maskmatch.inference.active_learning import most_helpful
from maskmatch.metrics.bootstrap import Difference, difference, iou, standard_error, with_error
from maskmatch.run_files import checkpoint
from maskmatch.training.baseline import Baseline
from maskmatch.training.last_line import images_of_val
from maskmatch.training.run import Run

LABEL_NEXT = 5  # images
LOOKED_AT = 200  # unlabelled images to choose them from, at most: it is to take seconds


@dataclass(frozen=True)
class Handover:
    """The end of a run that had a baseline."""

    baseline_is_better: bool
    miou_baseline: float  # the best on val
    miou_run: float  # likewise
    error_baseline: float  # one standard error of it; nan of a single image
    error_run: float  # likewise
    best_step: int  # when what is handed over was measured
    difference: Difference  # by how much what is handed over is above the other one
    images: int  # in val
    val: str  # what it is, in a sentence
    worst_class: str | None  # of what is handed over, of the classes in val
    worst_iou: float
    label_next: list[Path]

    def record(self) -> dict[str, Any]:
        """For summary.json, where it says what `best` is."""
        return {
            "best_miou": self.miou_baseline if self.baseline_is_better else self.miou_run,
            "best_step": self.best_step,
            "best_is": "baseline" if self.baseline_is_better else "run",
            "miou_baseline": self.miou_baseline,
            "miou_run": self.miou_run,
            "miou_error_baseline": finite(self.error_baseline),
            "miou_error_run": finite(self.error_run),
            "difference": self.difference.value,
            "standard_error": finite(self.difference.error),
            "val_images": self.images,
            "worst_class": self.worst_class,
            "worst_iou": finite(self.worst_iou),
            "label_next": [str(path) for path in self.label_next],
        }

    def line(self) -> str:
        """For a person."""
        points, error = 100 * self.difference.value, 100 * self.difference.error
        surely = f"{points:+.1f} points" + ("" if math.isnan(error) else f", give or take {error:.1f}")
        on_val = f"on {self.val} ({surely})"
        run = with_error(self.miou_run, self.error_run, 3)
        alone = with_error(self.miou_baseline, self.error_baseline, 3)
        if self.baseline_is_better:
            said = (
                f"the unlabelled images did not help: with them val mIoU is {run}, so this is the "
                f"network of the labelled alone, with {alone} {on_val}"
            )
        else:
            said = f"labelled alone would have given a val mIoU of about {alone}; this has {run} {on_val}"
        if self.worst_class is None:
            return said
        name = called(self.worst_class)
        said += f"; its worst class is {self.worst_class}, with {self.worst_iou:.3f}"
        if not self.label_next:
            return said
        number = len(self.label_next)
        images = "image" if number == 1 else "images"
        names = ", ".join(map(str, self.label_next))
        return f"{said}; the next best thing: label {number} more {images} for {name}: {names}"


def hand_over(run: Run) -> Handover | None:
    """Point `best` at the better one; None where there is no baseline to compare. To be called by all processes."""
    baseline, folder = run.baseline, run.folder / "checkpoints"
    best = folder / f"step_{run.best_step}"
    # A run that was resumed into another folder may have its best checkpoint elsewhere.
    if baseline is None or not baseline.best.step or not run.world.share(best.is_dir()):
        return None
    run_wins = run.best_miou >= baseline.best.miou
    own = _network(run, checkpoint.load_weights(best, run.config.train.select) if run.world.leads else None)
    alone = _network(run, _weights(baseline))
    of_run, of_alone = (run.validator.counts(network).counts.cpu().numpy() for network in (own, alone))
    better, counts, others = (own, of_run, of_alone) if run_wins else (alone, of_alone, of_run)
    if run.world.leads:
        checkpoint.save_baseline(folder, baseline.best.student, baseline.best.teacher, best=not run_wins)
    worst, worst_iou = _worst(counts.sum(0))
    return Handover(
        baseline_is_better=not run_wins,
        miou_baseline=baseline.best.miou,
        miou_run=run.best_miou,
        error_baseline=standard_error(of_alone),
        error_run=standard_error(of_run),
        best_step=run.best_step if run_wins else baseline.best.step,
        difference=difference(counts, others),
        images=len(run.dataset.val),
        val=images_of_val(run),
        worst_class=None if worst is None else run.dataset.class_names[worst],
        worst_iou=worst_iou,
        label_next=_label_next(run, better, worst) if run.world.leads and worst is not None else [],
    )


def _network(run: Run, weights: checkpoint.Weights | None) -> nn.Module:
    """One like the run's, with these weights, or the leader's where there are none here."""
    network = copy.deepcopy(run.teacher.network)
    if weights is not None:
        network.load_state_dict(weights)
    run.world.copy(network)
    return network


def _weights(baseline: Baseline) -> checkpoint.Weights:
    return baseline.best.teacher if baseline.select == "teacher" else baseline.best.student


def _worst(counts: np.ndarray) -> tuple[int | None, float]:
    """The class with the lowest IoU, of those in the targets, and its IoU; `counts` is int64 [3, C]."""
    of_classes = np.where(counts[1] > 0, iou(counts), np.nan)
    if np.isnan(of_classes).all():
        return None, math.nan
    worst = int(np.nanargmin(of_classes))
    return worst, float(of_classes[worst])


def _label_next(run: Run, network: nn.Module, worst: int) -> list[Path]:
    """Unlabelled images whose masks would help the worst class most."""
    unlabeled = [pair.image for pair in run.dataset.unlabeled]
    places = np.unique(np.linspace(0, len(unlabeled) - 1, min(LOOKED_AT, len(unlabeled))).round().astype(int))
    some = [unlabeled[place] for place in places]
    labeled = [pair.image for pair in run.dataset.labeled]
    found = most_helpful(network, run.student, some, labeled[:LOOKED_AT], LABEL_NEXT, of_class=worst)
    return [Path(os.path.relpath(one.path)) if one.path.is_relative_to(Path.cwd()) else one.path for one in found]
