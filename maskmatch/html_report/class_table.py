"""The table of classes: how well each is told, and how its pseudo-labels fare over time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from maskmatch.data import format_palette
from maskmatch.html_report.charts import Line, sparkline
from maskmatch.html_report.runs import RunOnPage

OVER_TIME = {
    "IoU over time": "iou_{weights}",
    "pseudo-labels confident": "coverage_by_class",
    "pseudo-labels right": "accuracy_by_class",
}


@dataclass(frozen=True)
class ClassRow:
    """One class. Values are shares, None where there was nothing to measure; lists have one entry a run."""

    name: str
    color: str
    pixels: float | None
    iou: list[float | None]
    boundary_iou: float | None
    accuracy: float | None
    over_time: list[tuple[Markup, float | None]]
    """For each of the table's `over_time`: the sparkline, and the last value where no other column has it."""

    @property
    def difference(self) -> float | None:
        """Of the second run's IoU from the first one's."""
        first, second = self.iou[:2]
        return None if first is None or second is None else second - first


@dataclass(frozen=True)
class ClassTable:
    """The runs that have the same classes."""

    runs: list[RunOnPage]
    measured: bool
    """Whether boundary IoU, accuracy and pixels are known (of the first run)."""
    over_time: list[str]
    rows: list[ClassRow]


def class_tables(runs: Sequence[RunOnPage]) -> list[ClassTable]:
    """One table for each set of classes."""
    alike: dict[tuple[str, ...], list[RunOnPage]] = {}
    for run in runs:
        alike.setdefault(run.model.class_names, []).append(run)
    return [_table(group) for group in alike.values()]


def _table(runs: list[RunOnPage]) -> ClassTable:
    first = runs[0]
    names, colors = first.model.class_names, format_palette(first.model.palette)
    ious = [_ious(run) for run in runs]
    measured = first.examined.measured.get("classes", [])
    total = max(1, sum(of_class["pixels"] for of_class in measured))
    keys = {title: key for title, key in OVER_TIME.items() if any(_lines([run], key, 0) for run in runs)}
    rows = []
    for index, (name, color) in enumerate(zip(names, colors, strict=True)):
        of_class = measured[index] if measured else {}
        rows.append(
            ClassRow(
                name=name,
                color=color,
                pixels=of_class["pixels"] / total if of_class else None,
                iou=[iou[index] for iou in ious],
                boundary_iou=of_class.get("boundary_iou"),
                accuracy=of_class.get("accuracy"),
                over_time=[_over_time(runs, key, index, f"{name}, {title}") for title, key in keys.items()],
            )
        )
    return ClassTable(runs, bool(measured), list(keys), rows)


def _over_time(runs: Sequence[RunOnPage], key: str, index: int, label: str) -> tuple[Markup, float | None]:
    lines = _lines(runs, key, index)
    steps = max(run.recorded.step for run in runs)
    last = lines[0].last if len(runs) == 1 and not key.startswith("iou") else None
    return sparkline(lines, label, steps), last


def _lines(runs: Sequence[RunOnPage], key: str, index: int) -> list[Line]:
    """One a run that has recorded such a number."""
    found = [(run, run.recorded.points_of_class(key.format(weights=run.model.weights), index)) for run in runs]
    return [Line(run.name, points, run.style) for run, points in found if points]


def _ious(run: RunOnPage) -> list[float | None]:
    """As measured, else as recorded in the validation of the checkpoint or the last one before it."""
    if classes := run.examined.measured.get("classes"):
        return [of_class["iou"] for of_class in classes]
    key, step, count = f"iou_{run.model.weights}", _step(str(run.model.checkpoint)), len(run.model.class_names)
    for record in reversed(run.recorded.records):
        iou = record.get(key)
        if isinstance(iou, list) and len(iou) == count and (step is None or record["step"] <= step):
            return iou
    return [None] * count


def _step(checkpoint: str) -> int | None:
    """Of a path such as `.../step_80`, or of a file below it."""
    found = re.search(r"step_(\d+)(/[^/]*)?$", checkpoint)
    return int(found[1]) if found else None
