"""The page: what was recorded and examined, put into the template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from maskmatch.common.version import __version__
from maskmatch.data import format_palette
from maskmatch.html_report import charts
from maskmatch.html_report.charts import Chart, Line, chart, number
from maskmatch.html_report.class_table import class_tables
from maskmatch.html_report.examined import Examined, Picture, best_and_worst, picture
from maskmatch.html_report.recorded import Points, Recorded
from maskmatch.html_report.runs import RunOnPage, shown, text
from maskmatch.inference.trained_model import TrainedModel

MARK = '<meta name="generator" content="maskmatch.report">'
"""Stands near the start of every page, so that no other file is taken for one."""


@dataclass(frozen=True)
class Group:
    """Numbers that belong into one chart: keys, and what they are called."""

    title: str
    keys: dict[str, str]
    percent: bool = False


CURVES = (
    Group("mIoU on val", {"miou_teacher": "teacher", "miou_student": "student"}, percent=True),
    Group(
        "Loss",
        {"loss": "total", "loss_x": "labelled", "loss_u": "strong view", "loss_m": "masked view", "loss_r": "painted"},
    ),
    Group(
        "Pseudo-labels",
        {"coverage": "confident pixels", "accuracy": "right, of those", "agreement": "student agrees, strong view"},
        percent=True,
    ),
    Group("Learning rate", {"lr": "encoder", "lr_head": "all else"}),
)
SPEED = (
    Group("Images a second", {"images_per_second": "images a second"}),
    Group("Waiting for data", {"data_wait": "share of the time"}, percent=True),
)


def render(found: Sequence[tuple[TrainedModel, Recorded, Examined]]) -> str:
    """The page on one run, or on several of which the first has the pictures."""
    names = _names([model.run for model, _, _ in found])
    runs = [RunOnPage(name, style, *one) for style, (name, one) in enumerate(zip(names, found, strict=True))]
    pictures, phases = _pictures(runs), _phase_table(runs)
    page = _template().render(
        mark=Markup(MARK),
        title=names[0] if len(runs) == 1 else f"{len(runs)} runs side by side",
        runs=runs,
        several=len(runs) > 1,
        differences=_differences(runs),
        comparable=len({run.examined.pairs for run in runs if run.examined.pairs}) <= 1,
        charts=_charts(runs, CURVES, lambda run, key: run.recorded.points(key)),
        class_tables=class_tables(runs),
        pictures=pictures,
        shown_classes=_shown_classes(runs[0].model, pictures),
        phases=phases,
        longest_phase=max([time for times in phases.values() for time in times if time] or [1.0]),
        speed_charts=_charts(runs, SPEED, lambda run, key: run.recorded.speed.get(key, [])),
        margins=f"{charts.LEFT} {charts.RIGHT} {charts.TOP} {charts.BOTTOM}",
        today=f"{date.today():%d %B %Y}".lstrip("0"),
        version=__version__,
    )
    return page.encode("utf-8", "replace").decode()  # a path may hold bytes that are no text


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("maskmatch.html_report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": lambda value: number(value, percent=True), "number": number}
    return environment.get_template("report.html")


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where they differ, else the paths as given."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _differences(runs: Sequence[RunOnPage]) -> dict[str, list[str]]:
    """Options that are not the same in all runs, with the value in each."""
    every = [shown(run.model.config) for run in runs]
    return {
        name: [text(values[name]) for values in every]
        for name in every[0]
        if any(values[name] != every[0][name] for values in every)
    }


def _charts(
    runs: Sequence[RunOnPage], groups: Sequence[Group], points_of: Callable[[RunOnPage, str], Points]
) -> list[Chart]:
    """One run has a chart a group; several have one a number, with a line a run."""
    drawn: list[Chart | None] = []
    for group in groups:
        numbers: dict[str, list[Points]] = {}
        for key in group.keys:
            of_runs = [points_of(run, key) for run in runs]
            if of_runs not in numbers.values():  # two of the same, such as one learning rate for all, are one
                numbers[key] = of_runs
        if len(runs) == 1:
            lines = [Line(group.keys[key], points, i) for i, (key, (points,)) in enumerate(numbers.items())]
            drawn.append(chart(group.title, lines, percent=group.percent))
            continue
        for key, of_runs in numbers.items():
            lines = [Line(run.name, points, run.style) for run, points in zip(runs, of_runs, strict=True)]
            title = group.title if len(group.keys) == 1 else f"{group.title}: {group.keys[key]}"
            drawn.append(chart(title, lines, percent=group.percent))
    return [one for one in drawn if one]


def _pictures(runs: Sequence[RunOnPage]) -> dict[str, list[Picture]]:
    """The best and the worst images of the first run, with every network's mask that has the same classes."""
    first = runs[0]
    if not first.examined.scores:
        return {}
    models = [(run.name, run.model) for run in runs if run.model.class_names == first.model.class_names]
    if len(runs) == 1:
        models = [("prediction", first.model)]
    return {
        title: [picture(first.examined, index, models) for index in indices]
        for title, indices in zip(("Best", "Worst"), best_and_worst(first.examined.scores), strict=True)
        if indices
    }


def _shown_classes(model: TrainedModel, pictures: dict[str, list[Picture]]) -> list[tuple[str, str]]:
    """Name and colour of the classes that occur in the pictures."""
    shown = {index for of_kind in pictures.values() for one in of_kind for index in one.classes}
    named = enumerate(zip(model.class_names, format_palette(model.palette), strict=True))
    return [one for index, one in named if index in shown]


def _phase_table(runs: Sequence[RunOnPage]) -> dict[str, list[float | None]]:
    """Milliseconds a step, by phase and run."""
    found = [dict(run.phases) for run in runs]
    names = dict.fromkeys(name for phases in found for name in phases)  # a set that keeps the order
    return {name: [phases.get(name) for phases in found] for name in names}
