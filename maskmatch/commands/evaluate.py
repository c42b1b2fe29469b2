"""`python -m maskmatch.evaluate RUN`: how good a run's network is, in numbers that can be compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from maskmatch.commands.command_line import add_inference_options, inference_of, run, run_parser
from maskmatch.common.errors import UserError
from maskmatch.common.terminal import passing_progress, plain_console
from maskmatch.config import DataConfig
from maskmatch.run_files.config_file import parse

if TYPE_CHECKING:
    from maskmatch.data import Dataset, Pair
    from maskmatch.inference.modes import Inference
    from maskmatch.inference.trained_model import TrainedModel
    from maskmatch.metrics import Measurement
    from maskmatch.training.distributed import World

DESCRIPTION = (
    "Measure a run's network on images with masks, at their own resolution: IoU, boundary IoU and accuracy by class, "
    "and how right it is on the pixels that it is sure of. Writes a JSON file and a picture of the confusion matrix. "
    "Under torchrun the processes share the images."
)
LISTS = ("root", "labeled", "val", "test", "images", "masks")
"""Options of data that may be others than in training."""
THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Rows of the printed table; the file has all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the command line says; returns the exit code."""
    return run(_evaluate, argv)


def _evaluate(argv: Sequence[str]) -> None:
    options = _options(argv)
    from maskmatch.inference.trained_model import load
    from maskmatch.run_files.versions import data_of
    from maskmatch.training import distributed

    world, device = distributed.join(options["device"], "device")
    model = load(options["run"], checkpoint=options["checkpoint"], weights=options["weights"], device=str(device))
    how = inference_of(options, model)
    given = {name: value for name, value in options["data"].items() if value is not None}
    with world.leader_first():  # which may draw the built-in data, and whose errors then stand alone
        dataset, pairs = _images(replace(data_of(model.run, model.config.data), **given), options["split"])
    root = given.get("root", model.config.data.root)  # as it was typed: the same from wherever it is measured
    settings = _settings(model, str(Path(root) if root else dataset.root), options["split"], len(pairs), how)
    path = _output(Path(options["output"] or model.run / "evaluation"), settings)
    measured = _measure(model, dataset, pairs, how, world)
    if world.leads:
        for note in dataset.notes:
            print(f"warning: {note}", file=sys.stderr)
        _print_tables(measured, model.class_names, settings)
        _write(path, measured, model.class_names, settings)
    distributed.leave()


def _options(argv: Sequence[str]) -> dict[str, Any]:
    parser = run_parser("maskmatch.evaluate", DESCRIPTION)
    parser.add_argument(
        "--split", type=Literal["val", "test", "labeled", "unlabeled"], default="val", help="Which of the run's lists."
    )
    add_inference_options(parser)
    for name in LISTS:
        parser.add_argument(f"--data.{name}", type=str | None, default=None, help="As in training; default the run's.")
    parser.add_argument("--output", type=str | None, default=None, help="Folder to write to; default RUN/evaluation.")
    return parse(parser, argv)


def _images(config: DataConfig, part: str) -> tuple[Dataset, list[Pair]]:
    """The data set and its images to measure, each of which was looked at."""
    from maskmatch.data import Pair, load_dataset
    from maskmatch.data.checking.preflight import check_pair, each
    from maskmatch.data.checking.stored_values import all_ignored, not_alike

    only: Any = part if part in ("val", "test") else None
    dataset = load_dataset(config, supervised_only=part != "unlabeled", incomplete=True, only=only)
    pairs = list(getattr(dataset, part))
    if part == "unlabeled":
        pairs = [Pair(pair.image, dataset.truth[pair.image]) for pair in pairs if pair.image in dataset.truth]
    if not pairs:
        option = "a list with masks in --data.unlabeled" if part == "unlabeled" else f"a list in --data.{part}"
        raise UserError(f"split: expected images with masks in {part}, got none; {option} names some")
    masks = list(each(lambda pair: check_pair(pair, dataset), pairs))
    if line := all_ignored(dataset, part, masks):
        raise UserError(line)
    line = not_alike(dataset, masks)  # may be right: all images may be without an object
    return replace(dataset, notes=(*dataset.notes, line)) if line else dataset, pairs


def _settings(model: TrainedModel, root: str, part: str, images: int, how: Inference) -> dict[str, Any]:
    """What the numbers depend on, as it stands in the file."""
    return {
        "run": str(model.run),
        "checkpoint": model.checkpoint.name,
        "weights": model.weights,
        "data": root,
        "split": part,
        "images": images,
        "mode": how.mode,
        "window": list(how.window) if how.window else None,
        "scales": list(how.scales),
        "flip": how.flip,
    }


def _output(folder: Path, settings: dict[str, Any]) -> Path:
    """The JSON file, in a folder that can be written; an earlier one may be replaced by the same measurement alone."""
    from maskmatch.common.text_files import writable_folder

    parts = [settings["split"], settings["mode"], settings["checkpoint"], settings["weights"]]
    if settings["window"]:
        parts.insert(2, "{}x{}".format(*settings["window"]))
    if settings["scales"] != [1.0]:
        parts.append("scales-" + "-".join(f"{scale:g}" for scale in settings["scales"]))
    path = folder / ("-".join(parts + ["flip"] * settings["flip"]) + ".json")
    writable_folder(folder)
    if path.exists():
        try:
            found = json.loads(path.read_text())["settings"]
        except (ValueError, KeyError, TypeError):
            found = None
        if found != settings:
            raise UserError(f"output: expected no file, or one of the same measurement, found another: {path}")
    return path


def _measure(model: TrainedModel, dataset: Dataset, pairs: list[Pair], how: Inference, world: World) -> Measurement:
    from maskmatch.metrics import Validator, measure

    share = slice(world.rank, None, world.size)
    validator = Validator(
        model.student, pairs, dataset.mask_table, len(model.class_names), model.device, share=share, how=how
    )
    with passing_progress(quiet=not world.leads) as progress:
        task = progress.add_task("evaluating", total=len(pairs[share]))
        return measure(validator, model.network, world.sum, lambda labels, _: progress.advance(task, len(labels)))


def _print_tables(measured: Measurement, class_names: Sequence[str], settings: dict[str, Any]) -> None:
    record = measured.record(tuple(class_names))
    console = plain_console(width=None if sys.stdout.isatty() else 120)
    what = "{weights} of {checkpoint}, {images} {split} images, {mode}".format(**settings)
    classes = Table("class", title=what)
    for name in ("IoU", "boundary IoU", "accuracy", "pixels"):
        classes.add_column(name, justify="right")
    share = max(1, sum(row["pixels"] for row in record["classes"]))
    for row in record["classes"]:
        cells = [_percent(row[name]) for name in ("iou", "boundary_iou", "accuracy")]
        classes.add_row(row["name"], *cells, f"{row['pixels'] / share:.1%}")
    classes.add_section()
    means = [_unsure(record), *(_percent(record[name]) for name in ("mean_boundary_iou", "mean_accuracy"))]
    classes.add_row("mean", *means, f"{_percent(record['pixel_accuracy'])} right")
    console.print(classes)
    sure = Table("confidence at least")
    for name in ("pixels", "right"):
        sure.add_column(name, justify="right")
    for point in record["coverage"]:
        if point["threshold"] in THRESHOLDS:
            sure.add_row(f"{point['threshold']:.2f}", _percent(point["coverage"]), _percent(point["accuracy"]))
    console.print(sure)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _unsure(record: dict[str, Any]) -> str:
    """The mIoU and its standard error, in per cent."""
    value, error = record["miou"], record["miou_error"]
    return _percent(value) if value is None or error is None else f"{100 * value:.2f} +- {100 * error:.2f} %"


def _write(path: Path, measured: Measurement, class_names: Sequence[str], settings: dict[str, Any]) -> None:
    from maskmatch.common.drawing import spared
    from maskmatch.common.text_files import whole, write_text
    from maskmatch.metrics import save_confusion

    picture = path.with_name(f"{path.stem}-confusion.png")
    write_text(path, json.dumps({"settings": settings} | measured.record(tuple(class_names)), indent=1) + "\n")
    with spared(picture, partial(print, file=sys.stderr)), whole(picture) as beside:
        save_confusion(beside, measured.matrix, class_names)
    print("written: " + ", ".join(str(file) for file in (path, picture) if file.exists()))
