"""Plots of benchmarks/ablation.py; all take arm -> seed -> record, and the main arms' to compare with."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.ablation.arms import ALL
from benchmarks.ablation.results import Record
from maskmatch.common.drawing import drawable

Runs = dict[int, Record]
COLORS = {"supervised": "#9a9a9a", "upper": "#c8c8c8", "full": "#d1495b"}
COLOR = "#2f6690"
PER_CLASS = ("supervised", "consistency", "full", "upper")


def plot_main(path: Path, arms: dict[str, Runs], main: dict[str, Runs]) -> None:
    """A bar for each arm, a dot for each seed."""
    figure, (axes,) = _panels(1.3 * len(arms) + 1, 3.6, 1)
    for place, (name, runs) in enumerate(arms.items()):
        values = _miou(runs.values())
        axes.bar(place, fmean(values), 0.7, color=COLORS.get(name, COLOR))
        axes.plot([place] * len(values), values, "o", color="black", markersize=4)
        axes.text(place, 1, f"{fmean(values):.1f}", ha="center", va="bottom", color="white", fontsize=9)
    axes.set_xticks(range(len(arms)), [ALL[name].label.replace(" + ", "\n+ ") for name in arms], fontsize=8)
    axes.set_ylabel("mIoU of the teacher, percent")
    figure.savefig(path)


def plot_classes(path: Path, arms: dict[str, Runs], main: dict[str, Runs]) -> None:
    """Groups of bars: IoU of each class."""
    arms = {name: runs for name, runs in arms.items() if name in PER_CLASS} or arms
    names = next(iter(next(iter(arms.values())).values()))["class_names"]
    figure, (axes,) = _panels(max(5.0, 0.9 * len(names) + 1), 3.4, 1)
    width = 0.8 / len(arms)
    for number, (name, runs) in enumerate(arms.items()):
        heights = [100 * fmean(r["iou_teacher"][i] or 0.0 for r in runs.values()) for i in range(len(names))]
        places = [i + (number - (len(arms) - 1) / 2) * width for i in range(len(names))]
        axes.bar(places, heights, width, label=ALL[name].label, color=COLORS.get(name, COLOR))
    axes.set_xticks(range(len(names)), drawable(names).texts, rotation=30 if len(names) > 6 else 0, fontsize=8)
    axes.set_ylabel("IoU of the teacher, percent")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def plot_ablations(path: Path, arms: dict[str, Runs], main: dict[str, Runs]) -> None:
    """A panel for each topic: a dot for each seed, a dash for the mean; lines for the full method and consistency."""
    topics: dict[str, list[str]] = {}
    for name in arms:
        topics.setdefault(ALL[name].topic, []).append(name)
    rows = -(-len(topics) // 3)
    figure, panels = _panels(9.0, 2.4 * rows + 0.4, len(topics), columns=3)
    for axes, (topic, names) in zip(panels, topics.items(), strict=True):
        for name in ("full", "consistency"):
            if name in main:
                axes.axhline(fmean(_miou(main[name].values())), color=COLORS.get(name, COLOR), linewidth=1, alpha=0.6)
        for place, name in enumerate(names):
            values = _miou(arms[name].values())
            axes.plot([place] * len(values), values, "o", color=COLOR, markersize=4, alpha=0.7)
            axes.plot(place, fmean(values), "_", color="black", markersize=16)
        axes.set_xticks(range(len(names)), [_wrapped(ALL[name].label) for name in names], fontsize=7)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_title(topic, fontsize=9)
    panels[0].set_ylabel("mIoU, percent", fontsize=8)
    figure.savefig(path)


def _wrapped(label: str) -> str:
    return textwrap.fill(label, 13, break_long_words=False)


def _miou(records: Iterable[Record]) -> list[float]:
    return [100 * record["miou_teacher"] for record in records]


def new_figure(width: float, height: float) -> Figure:
    """A figure that needs no display."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panels(width: float, height: float, panels: int, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, which share the vertical axis."""
    figure = new_figure(width, height)
    grid = figure.subplots(-(-panels // columns), columns, sharey=True, squeeze=False).flatten().tolist()
    for axes in grid[panels:]:
        axes.set_visible(False)
    for axes in grid[:panels]:
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
    return figure, grid[:panels]
