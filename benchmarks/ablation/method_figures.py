"""The figures of docs/method.md, drawn from the runs that benchmarks/ablation.py left for its main arms.

python benchmarks/method_figures.py runs/ablation/builtin --seed 0 --output docs/images
python benchmarks/method_figures.py runs/ablation/camvid --classes "consistency=alpha 0.5,consistency-alpha-0.0=alpha 0"
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from benchmarks.ablation.plots import new_figure
from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.drawing import add_legend, drawable
from maskmatch.common.errors import UserError
from maskmatch.data import load_dataset, read_pair
from maskmatch.inference.mask_pictures import certain, mask_picture
from maskmatch.inference.modes import Inference
from maskmatch.inference.trained_model import TrainedModel, load
from maskmatch.method.batchnorm import running_statistics
from maskmatch.ops import multiscale_pseudo_label, patch_mask

COMPARED = {"supervised": "labelled images alone", "consistency": "consistency", "full": "MaskMatch"}
CURVES = {"consistency": "consistency", "ms": "consistency + MS", "lcr": "consistency + LCR", "full": "MaskMatch"}
CLASSES = {"full": "a threshold for each class", "one-tau": "one threshold for all"}
STRATEGIES = ("random", "block", "grid")
RATIOS = (0.3, 0.7)
SCALES = ([1.0], [1.0, 1.5], [0.75, 1.0, 1.5])
IMAGES = 4  # of the test list, evenly spaced
BATCH = 8  # images that are masked together
UNSURE = (70, 70, 70)

Log = list[dict[str, Any]]  # a run's metrics.jsonl
Row = list[tuple[str, np.ndarray]]  # title and picture, uint8 [H, W, 3]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", type=Path, help="folder of the runs, such as runs/ablation/builtin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/images"), metavar="DIR")
    parser.add_argument("--classes", metavar="ARM=LABEL,...", help="draw the curves of each class of these arms alone")
    arguments = parser.parse_args(argv)
    if arguments.classes:
        parts = [part.partition("=") for part in arguments.classes.split(",")]
        if not all(arm and label for arm, _, label in parts):
            raise UserError(f"--classes: expected ARM=LABEL,..., got {arguments.classes}")
        labels = {arm: label for arm, _, label in parts}
        _draw_classes(arguments, labels, f"method-classes-{arguments.runs.name}.png")
        return 0
    folders = {arm: _find(arguments.runs, arm, arguments.seed) for arm in COMPARED | CURVES | CLASSES}
    models = {arm: load(folders[arm], checkpoint="last") for arm in COMPARED}
    student = load(folders["full"], checkpoint="last", weights="student")
    dataset = load_dataset(student.config.data, supervised_only=True)
    found = [read_pair(pair.image, pair.mask, dataset.mask_table) for pair in dataset.test if pair.mask]
    images = found[:: max(1, len(found) // IMAGES)][:IMAGES]
    batch = [image for image, _ in found[:BATCH]]
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = {
        "compare": [_compared(models, *pair) for pair in images],
        "masks": [_masked(student, ratio, batch, found[0][1]) for ratio in RATIOS],
        "scales": [_labelled(models["full"], *pair) for pair in images],
    }
    for name, pictures in rows.items():
        _save(arguments.output / f"method-{name}.png", pictures, student)
    _save_curves(arguments.output / "method-coverage.png", {CURVES[arm]: _log(folders[arm]) for arm in CURVES})
    _draw_classes(arguments, CLASSES, "method-classes.png")
    return 0


def _draw_classes(arguments: argparse.Namespace, labels: dict[str, str], name: str) -> None:
    """The curves of each class; `labels` says what each arm is called there."""
    folders = {label: _find(arguments.runs, arm, arguments.seed) for arm, label in labels.items()}
    class_names = load(next(iter(folders.values())), checkpoint="last").class_names
    arguments.output.mkdir(parents=True, exist_ok=True)
    _save_class_curves(arguments.output / name, {label: _log(folders[label]) for label in folders}, class_names)


def _find(runs: Path, arm: str, seed: int) -> Path:
    """The newest finished run of an arm."""
    found = list(runs.glob(f"{arm}-seed{seed}-*/summary.json"))
    if not found:
        raise UserError(f"expected a finished run of the arm {arm}, found no {runs}/{arm}-seed{seed}-*/summary.json")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _compared(models: dict[str, TrainedModel], image: np.ndarray, truth: np.ndarray) -> Row:
    found = [(COMPARED[arm], _colored(model.predict(image).labels, model)) for arm, model in models.items()]
    return [("image", image), ("truth", _colored(truth, models["full"])), *found]


def _masked(model: TrainedModel, ratio: float, images: Sequence[np.ndarray], truth: np.ndarray) -> Row:
    """What is shown of the first image with patches hidden, and what the student makes of it: as in training, where
    the masked views are normalised by their own statistics."""
    config, student = model.config.method, model.student
    pixels = torch.tensor(np.stack(images)).permute(0, 3, 1, 2)
    seeds = torch.arange(len(images))
    row = []
    for strategy in STRATEGIES:
        hidden, _ = patch_mask(
            pixels,
            config.patch_size,
            mask_ratio=ratio,
            seeds=seeds,
            strategy=strategy,
            mean=student.mean,
            std=student.std,
        )
        with torch.no_grad(), running_statistics(model.network, update=False):
            logits = model.network.train()(hidden)
        model.network.eval()
        label, _ = multiscale_pseudo_label([logits], truth.shape, align_corners=student.align_corners)
        shown = hidden[0].permute(1, 2, 0).numpy() * np.array(student.std) + np.array(student.mean)
        row += [
            (f"{strategy}, {ratio:.0%} hidden", (255 * shown).clip(0, 255).astype(np.uint8)),
            ("what the student sees in it", _colored(label[0].numpy(), model)),
        ]
    return [*row, ("truth", _colored(truth, model))]


def _labelled(model: TrainedModel, image: np.ndarray, truth: np.ndarray) -> Row:
    """Pseudo-labels at several scales, dark where they do not count."""
    row = [("image", image), ("truth", _colored(truth, model))]
    for scales in SCALES:
        label, confidence = model.predict(image, Inference(scales=tuple(scales)))
        counted = certain(label, confidence, model.config.method.threshold)
        picture = _colored(counted, model)
        picture[counted == IGNORE_INDEX] = UNSURE
        row.append((f"scales {', '.join(f'{scale:g}' for scale in scales)}", picture))
    return row


def _colored(labels: np.ndarray, model: TrainedModel) -> np.ndarray:
    return np.array(mask_picture(labels, model.palette).convert("RGB"))


def _save(path: Path, rows: Sequence[Row], model: TrainedModel) -> None:
    columns = len(rows[0])
    figure = new_figure(1.7 * columns, 1.85 * len(rows) + 0.35)
    for axes, (title, picture) in zip(
        figure.subplots(len(rows), columns, squeeze=False).flat, [panel for row in rows for panel in row], strict=True
    ):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=7)
        axes.set_axis_off()
    options = {"loc": "outside lower center", "ncols": len(model.class_names), "frameon": False, "fontsize": 7}
    add_legend(figure, model.class_names, model.palette / 255, **options)
    figure.savefig(path)


def _log(folder: Path) -> Log:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _save_curves(path: Path, logs: dict[str, Log]) -> None:
    figure = new_figure(9.0, 2.9)
    titles = {"coverage": "pixels above the threshold", "accuracy": "of those, right", "miou_teacher": "mIoU on val"}
    for axes, (key, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        _draw_curves(axes, title, {name: [(line["step"], line.get(key)) for line in log] for name, log in logs.items()})
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _save_class_curves(path: Path, logs: dict[str, Log], class_names: Sequence[str]) -> None:
    """Above the share of each class's pseudo-labels that count, below the class's IoU."""
    figure = new_figure(1.5 * len(class_names), 3.6)
    panels = figure.subplots(2, len(class_names), sharex=True, sharey="row")
    for row, key in zip(panels, ("coverage_by_class", "iou_teacher"), strict=True):
        for index, (axes, name) in enumerate(zip(row, drawable(class_names).texts, strict=True)):
            points = {of: [(line["step"], line[key][index]) for line in log if key in line] for of, log in logs.items()}
            _draw_curves(axes, name, points)
    panels[0][0].set_ylabel("pixels above the threshold", fontsize=7)
    panels[1][0].set_ylabel("IoU on val", fontsize=7)
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8
    )
    figure.savefig(path)


def _draw_curves(axes: Axes, title: str, curves: dict[str, list[tuple[int, float | None]]]) -> None:
    for name, points in curves.items():
        known = [(step, value) for step, value in points if value is not None]
        axes.plot(*zip(*known, strict=True), label=name, linewidth=1.2)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
