"""Figures of a run: predictions beside the truth, curves, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.drawing import add_legend, drawable
from maskmatch.inference.mask_pictures import all_colors

PANELS = ("image", "truth", "prediction", "confidence")
PANEL_WIDTH = 2.6  # inches
DPI = 110
LEGEND_COLUMNS = 7
CELLS_WITH_NUMBERS = 30
"""Classes up to which a confusion matrix has room for numbers."""
LOSSES = {
    "loss": "total",
    "loss_x": "labelled, $L_x$",
    "loss_u": "strong view, $L_u$",
    "loss_m": "masked view, $L_m$",
    "loss_r": "reconstruction, $L_r$",
}
MIOUS = {"miou_student": "student", "miou_teacher": "teacher"}

Row = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def save_predictions(
    path: Path | str,
    rows: Sequence[Row],
    palette: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Write a PNG with image, truth, prediction and confidence side by side, one image a row.

    Args:
        path: where to.
        rows: at least one; each is an image uint8 [H, W, 3], the truth uint8 [H, W], the predicted classes
            uint8 [H, W] and their confidence float32 [H, W] in [0, 1].
        palette: uint8 [C, 3], the colour of each class.
        class_names: C names, for the legend.
    """
    heights = [PANEL_WIDTH * image.shape[0] / image.shape[1] for image, *_ in rows]
    legend_height = 0.15 + 0.28 * -(-(len(class_names) + 1) // LEGEND_COLUMNS)
    title_height, bar_width = 0.3, 0.65
    width = len(PANELS) * PANEL_WIDTH + bar_width
    height = title_height + sum(heights) + legend_height
    figure = _figure(width, height)
    grid = figure.add_gridspec(
        len(rows),
        len(PANELS) + 1,
        width_ratios=[*[PANEL_WIDTH] * len(PANELS), 0.12],
        height_ratios=heights,
        left=0.05 / width,
        right=1 - 0.45 / width,
        top=1 - title_height / height,
        bottom=legend_height / height,
        wspace=0.03,
        hspace=0.03,
    )
    colors = all_colors(palette)
    for index, (image, truth, label, confidence) in enumerate(rows):
        for column, panel in enumerate((image, colors[truth], colors[label], confidence)):
            axes = figure.add_subplot(grid[index, column])
            drawn = axes.imshow(
                panel,
                vmin=0,
                vmax=1,
                interpolation="bilinear" if column == 0 else "nearest",
            )
            axes.set_axis_off()
            if index == 0:
                axes.set_title(PANELS[column], fontsize=11)
    figure.colorbar(drawn, cax=figure.add_subplot(grid[:, -1]))
    ignored = ["ignored"] if any((truth >= len(palette)).any() for _, truth, *_ in rows) else []
    names = [*class_names, *ignored]
    swatches = colors[[*range(len(palette)), *([IGNORE_INDEX] * len(ignored))]] / 255
    columns = min(LEGEND_COLUMNS, len(names))
    add_legend(figure, names, swatches, loc="lower center", ncols=columns, frameon=False, fontsize=10)
    figure.savefig(path)


def save_curves(path: Path | str, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG with losses, pseudo-label coverage and mIoU over the steps.

    `records` are those of metrics.jsonl: each has `step` and any of `loss`, `loss_x`, `loss_u`, `loss_m`,
    `coverage`, `miou_student` and `miou_teacher`; what is missing or None is left out.
    """
    figure = _figure(7.5, 8.0)
    losses, coverage, miou = figure.subplots(3, 1, sharex=True)
    for key, label in LOSSES.items():
        _plot(losses, records, key, label)
    _plot(coverage, records, "coverage", "pixels above the threshold")
    for key, label in MIOUS.items():
        _plot(miou, records, key, label, marker="o", markersize=3)
    for axes, title in (
        (losses, "loss"),
        (coverage, "pseudo-label coverage"),
        (miou, "mIoU on val"),
    ):
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    coverage.set_ylim(0, 1)
    miou.set_xlabel("step")
    figure.align_ylabels()
    figure.tight_layout()
    figure.savefig(path)


def save_confusion(path: Path | str, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """Write a PNG of a confusion matrix: of each true class, in rows, the percentage taken for each class.

    Args:
        path: where to.
        matrix: counts [C, C], rows are targets, columns predictions.
        class_names: C names.
    """
    count = len(class_names)
    pixels = matrix.sum(1, keepdims=True)
    share = np.divide(100 * matrix, pixels, out=np.full(matrix.shape, np.nan), where=pixels > 0)
    side = min(30.0, max(4.0, 0.42 * count + 1.6))
    figure = _figure(side + 0.8, side)
    axes = figure.add_subplot()
    drawn = axes.imshow(share, vmin=0, vmax=100, cmap="Blues")
    size = min(10.0, max(3.0, 45 * side / count / 2.6))
    names = drawable(class_names)
    axes.set_xticks(range(count), names.texts, rotation=90, fontsize=size, fontfamily=names.family)
    axes.set_yticks(range(count), names.texts, fontsize=size, fontfamily=names.family)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if count <= CELLS_WITH_NUMBERS:
        for row, column in zip(*np.nonzero(np.nan_to_num(share) >= 0.5), strict=True):
            value = share[row, column]
            color = "white" if value > 60 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=0.9 * size, color=color)
    figure.colorbar(drawn, ax=axes, label="% of the class's pixels", fraction=0.046, pad=0.03)
    figure.tight_layout()
    figure.savefig(path, format="png")


def _figure(width: float, height: float) -> Figure:
    """A figure of that many inches that needs no display and leaves pyplot's global state alone."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _plot(axes: Axes, records: Sequence[Mapping[str, Any]], key: str, label: str, **style: Any) -> None:
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, linewidth=1.4, **style)
