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
from maskmatch.inference.active_learning import most_helpful
from maskmatch.metrics.paired import Difference, counts_by_image, difference, iou
from maskmatch.run_files import checkpoint
from maskmatch.training.baseline import Baseline
from maskmatch.training.run import Run

LABEL_NEXT = 5  # images
LOOKED_AT = 200  # unlabelled images to choose them from, at most: it is to take seconds


@dataclass(frozen=True)
class Handover:
    """The end of a run that had a baseline."""

    baseline_is_better: bool
    miou_baseline: float  # the best on val
    miou_run: float  # likewise
    best_step: int  # when what is handed over was measured
    difference: Difference  # by how much what is handed over is above the other one
    images: int  # in val
    held_out: bool  # whether val has other images than those that were learned from
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
        images = f"{self.images} held-out images" if self.held_out else f"the {self.images} images it learned from"
        on_val = f"on {images} ({surely})"
        if self.baseline_is_better:
            said = (
                f"the unlabelled images did not help: with them val mIoU is {self.miou_run:.3f}, so this is the "
                f"network of the labelled alone, with {self.miou_baseline:.3f} {on_val}"
            )
        else:
            said = (
                f"labelled alone would have given a val mIoU of about {self.miou_baseline:.3f}; this has "
                f"{self.miou_run:.3f} {on_val}"
            )
        if self.worst_class is None:
            return said
        said += f"; its worst class is {self.worst_class}, with {self.worst_iou:.3f}"
        if not self.label_next:
            return said
        names = ", ".join(map(str, self.label_next))
        return f"{said}; the next best thing: label {len(self.label_next)} more images for {self.worst_class}: {names}"


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
    better, other = (own, alone) if run_wins else (alone, own)
    counts = [_counts(run, network) for network in (better, other)]
    if run.world.leads:
        checkpoint.save_baseline(folder, baseline.best.student, baseline.best.teacher, best=not run_wins)
    worst, worst_iou = _worst(counts[0].sum(0))
    return Handover(
        baseline_is_better=not run_wins,
        miou_baseline=baseline.best.miou,
        miou_run=run.best_miou,
        best_step=run.best_step if run_wins else baseline.best.step,
        difference=difference(*counts),
        images=len(run.dataset.val),
        held_out=not {pair.image for pair in run.dataset.val} <= {pair.image for pair in run.dataset.labeled},
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


def _counts(run: Run, network: nn.Module) -> np.ndarray:
    own = slice(run.world.rank, None, run.world.size)
    return counts_by_image(run.validator, network, own, len(run.dataset.val), run.world.sum)


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
