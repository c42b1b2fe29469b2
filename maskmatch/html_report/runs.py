"""One run as the page shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from maskmatch.config import Config, flat
from maskmatch.html_report.charts import STYLES, number
from maskmatch.html_report.examined import Examined
from maskmatch.html_report.recorded import Phase, Points, Recorded
from maskmatch.inference.trained_model import TrainedModel

SHOWN_ELSEWHERE = {"data.class_names", "data.palette"}
MEASURES = {
    "mIoU": "miou",
    "boundary IoU": "mean_boundary_iou",
    "pixel accuracy": "pixel_accuracy",
    "class accuracy": "mean_accuracy",
}
"""What the page calls the parts of `Measurement.record`."""


@dataclass(frozen=True)
class RunOnPage:
    """All that is known of a run, and how the page tells it from the others."""

    name: str
    style: int
    model: TrainedModel
    recorded: Recorded
    examined: Examined

    @property
    def css(self) -> str:
        """The class of its lines."""
        return f"s{self.style % STYLES}"

    @property
    def headline(self) -> str:
        """Data, network, method and how far it has come."""
        config, data = self.model.config, self.examined.dataset
        parts: list[str] = [config.data.layout]
        if data:
            unlabeled = "" if config.method.supervised_only else f"{len(data.unlabeled)} unlabelled, "
            parts.append(f"{len(data.labeled)} labelled, {unlabeled}{len(data.val)} validation images")
        parts.append(f"{config.model.arch} with {config.model.encoder}")
        if config.method.supervised_only:
            parts.append("labelled images alone")
        finished = self.recorded.summary and self.recorded.step >= self.steps
        parts.append(
            f"finished, {self.steps} steps" if finished else f"not finished: step {self.recorded.step} of {self.steps}"
        )
        return " · ".join(parts)

    @property
    def steps(self) -> int:
        """That it was to take."""
        return self.model.config.train.steps or self.recorded.step

    @property
    def figures(self) -> dict[str, str]:
        """The numbers that are looked at first."""
        measured, recorded = self.examined.measured, self.recorded
        if measured:
            what = f"mIoU on val, {self.model.weights} of {self.model.checkpoint.name}"
            shares = {what if name == "mIoU" else name: measured[key] for name, key in MEASURES.items()}
            errors = {what: measured["miou_error"]}
        else:
            names = {name: f"mIoU on val, last {name}" for name in ("teacher", "student")}
            shares = {what: recorded.last(f"miou_{name}") for name, what in names.items()}
            errors = {what: recorded.last(f"miou_error_{name}") for name, what in names.items()}
        shares["pseudo-labels confident, at the end"] = recorded.last("coverage")
        shares["of those right, at the end"] = recorded.last("accuracy")
        shown = {
            name: number(value, percent=True, error=errors.get(name))
            for name, value in shares.items()
            if value is not None
        }
        speed = self._speed("images_per_second")
        return shown if speed is None else shown | {"images a second in training": number(speed)}

    @property
    def results(self) -> dict[str, str]:
        """Its row in the table of runs."""
        recorded, measured = self.recorded, self.examined.measured
        row = {name: number(measured.get(key), percent=True) for name, key in MEASURES.items()}
        row["mIoU"] = number(measured.get("miou"), percent=True, error=measured.get("miou_error"))
        for name in ("teacher", "student"):
            error = recorded.last(f"miou_error_{name}")
            row[f"last {name}"] = number(recorded.last(f"miou_{name}"), percent=True, error=error)
        row["steps"] = f"{recorded.step} of {self.steps}"
        row["images/s"] = number(self._speed("images_per_second"))
        row["memory, MB"] = number(self._speed("peak_memory_mb"))
        return row

    def _speed(self, key: str) -> float | None:
        """Of the whole training, or of its last steps where it has not finished."""
        points: Points = self.recorded.speed.get(key, [])
        return self.recorded.summary.get(key) or (points[-1][1] if points else None)

    @property
    def notes(self) -> list[str]:
        """What a reader should know before believing the numbers."""
        notes = []
        if self.examined.reason:
            notes.append(f"No measurement and no pictures: {self.examined.reason}.")
        if skipped := self.recorded.last("skipped_steps"):
            notes.append(f"{skipped:.0f} steps were skipped, since a loss or a gradient was not finite.")
        if files := self.recorded.summary.get("skipped_files"):
            notes.append(f"{len(files)} damaged files were left out, such as {files[0]}.")
        if not self.recorded.records:
            notes.append("No curves: there are no records (metrics.jsonl).")
        return notes

    @property
    def validations(self) -> list[dict[str, Any]]:
        """The records that have measurements on val."""
        return [record for record in self.recorded.records if "miou_teacher" in record]

    @property
    def phases(self) -> list[Phase]:
        """Of the profile, else what every run measures."""
        step, wait = (self.recorded.summary.get(key) for key in ("step_ms", "data_wait_ms"))
        if self.recorded.phases or step is None or wait is None:
            return self.recorded.phases
        return [Phase("data wait", wait), Phase("everything else", step - wait)]

    @property
    def options(self) -> dict[str, dict[str, tuple[str, bool]]]:
        """By section and option: the value as text, and whether it is another than the default."""
        own, default = shown(self.model.config), shown(Config())
        sections: dict[str, dict[str, tuple[str, bool]]] = {}
        for name, value in own.items():
            section, _, option = name.rpartition(".")
            sections.setdefault(section or "run", {})[option] = (text(value), value != default[name])
        return sections


def shown(config: Config) -> dict[str, Any]:
    """`section.option` -> value, of what makes a run."""
    return {name: value for name, value in flat(config).items() if name not in SHOWN_ELSEWHERE}


def text(value: Any) -> str:
    """A value of an option as it is written in YAML's flow style."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
