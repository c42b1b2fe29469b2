"""`python -m maskmatch.predict RUN IMAGES... --output DIR`: masks for files, folders and videos.

With `--next N` no masks, but the images that a person should give one next: see predict_next.py.
"""

from __future__ import annotations

import io
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmatch.commands.command_line import add_inference_options, inference_of, run, run_parser
from maskmatch.common.errors import UserError
from maskmatch.common.options import EXIT_USER_ERROR, add_switch
from maskmatch.common.terminal import passing_progress
from maskmatch.run_files.config_file import parse

if TYPE_CHECKING:
    import numpy as np

    from maskmatch.inference.inputs import NamedImage
    from maskmatch.inference.modes import Inference
    from maskmatch.inference.trained_model import TrainedModel

DESCRIPTION = (
    "Predict a mask for every image: labels/NAME.png (class indices, with a palette), overlays/NAME.jpg and "
    "confidence/NAME.png (0 to 255). What is there already is left alone, so that the same command goes on where it "
    "was stopped; files that cannot be read are skipped and named at the end."
)
FOLDERS = {"labels": ".png", "overlays": ".jpg", "confidence": ".png"}
PSEUDO_LABELS = "pseudo_labels"
SETTINGS = "predict.json"
WRITERS = 2
"""Threads that encode and write while the network computes."""
WRITE_BEHIND = 16
"""Images that may wait to be written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Predict what the command line names; returns the exit code."""
    return run(_predict, argv, "interrupted; the same command goes on where it was")


def _predict(argv: Sequence[str]) -> int:
    options = _options(argv)
    from maskmatch.inference.inputs import find_inputs, in_batches, read_inputs
    from maskmatch.inference.trained_model import load

    model = load(options["run"], checkpoint=options["checkpoint"], weights=options["weights"], device=options["device"])
    how = inference_of(options, model)
    if options["next"] is not None:
        from maskmatch.commands.predict_next import name_next

        name_next(model, list(_arguments(options["images"] or [])), options)
        return 0
    threshold = model.config.method.threshold if options["threshold"] is None else options["threshold"]
    folder = Path(options["output"])
    names = [*FOLDERS, PSEUDO_LABELS]
    inputs = find_inputs(_arguments(options["images"]), not_in=[folder / name for name in names])
    if not inputs:
        raise UserError(f"images: expected images or videos, found none in {', '.join(options['images'])}")
    settings = _settings(model, how)
    kinds = dict(FOLDERS)
    if options["pseudo_labels"]:
        kinds[PSEUDO_LABELS] = ".png"
        settings["threshold"] = threshold
    _prepare(folder, settings, options["overwrite"])
    output = Output(folder, kinds, options["overwrite"], model.palette, threshold)

    failures: list[str] = []
    with passing_progress() as progress, output:
        task = progress.add_task("predicting", total=None if any(one.is_video for one in inputs) else len(inputs))
        for batch in in_batches(read_inputs(inputs, output.wants, failures.append)):
            for image, labels, confidence in _run(model, how, batch):
                output.write(image, labels, confidence)
            progress.advance(task, len(batch))
    if options["pseudo_labels"]:
        _list_pseudo_labels(folder, [(one.path, one.name) for one in inputs if not one.is_video])
    for failure in failures:
        print(f"skipped: {failure}", file=sys.stderr)
    there = f", {output.there} {'was' if output.there == 1 else 'were'} there already" if output.there else ""
    skipped = f", {len(failures)} skipped" if failures else ""
    print(f"{output.written} {'image' if output.written == 1 else 'images'} written to {folder}{there}{skipped}")
    return 0 if output.written or output.there else EXIT_USER_ERROR


def _options(argv: Sequence[str]) -> dict[str, Any]:
    parser = run_parser("maskmatch.predict", DESCRIPTION)
    images = parser.add_argument(
        "images", type=str, nargs="+", help="Files, folders, patterns, videos; - reads such a list from stdin."
    )
    images.required = False  # with --next; nargs "*" would take none where options stand between RUN and IMAGES
    parser.add_argument("--output", type=str | None, default=None, help="Folder to write to.")
    add_inference_options(parser)
    add_switch(parser, "--overwrite", "Write again what is there already.")
    add_switch(
        parser,
        "--pseudo_labels",
        "Also write pseudo_labels/NAME.png, with uncertain pixels at 255, and a list to train with.",
    )
    parser.add_argument(
        "--threshold", type=float | None, default=None, help="Confidence of a pseudo-label; default training's."
    )
    parser.add_argument(
        "--next",
        type=int | None,
        default=None,
        help="Predict nothing, but name so many images whose masks would help most, of those given or of the run's "
        "unlabelled ones; with --output also as next.json.",
    )
    options = parse(parser, argv)
    _check(options)
    return options


def _check(options: dict[str, Any]) -> None:
    threshold, wanted = options["threshold"], options["next"]
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"threshold must be a number from 0 to 1, got {threshold}")
    if wanted is None and not options["images"]:
        raise UserError("images: expected files, folders, patterns or videos, got none")
    if wanted is None and options["output"] is None:
        raise UserError("required: output, the folder to write to (or --next)")
    if wanted is not None and wanted < 1:
        raise UserError(f"next must be at least 1, got {wanted}")
    if wanted is not None and (options["mode"] != "whole" or options["scales"] != [1.0] or options["flip"]):
        raise UserError("--next looks at whole images once: leave --mode, --scales and --flip out")


def _arguments(given: Sequence[str]) -> Iterator[str]:
    """The arguments, `-` replaced by the lines of stdin."""
    for argument in given:
        if argument == "-":
            if isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(errors="surrogateescape")  # names of files may be any bytes
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield argument


def _settings(model: TrainedModel, how: Inference) -> dict[str, Any]:
    """What the masks depend on, kept beside them, so that those of two networks do not get mixed."""
    return {
        "run": str(model.run.absolute()),
        "checkpoint": str(model.checkpoint),
        "weights": model.weights,
        "mode": how.mode,
        "window": list(how.window) if how.window else None,
        "scales": list(how.scales),
        "flip": how.flip,
    }


def _prepare(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Make the folder; refuse one with the masks of another network."""
    from maskmatch.common.text_files import writable_folder, write_text

    path = writable_folder(folder) / SETTINGS
    found: dict[str, Any] = {}
    if path.exists() and not overwrite:
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"expected what an earlier call wrote, or --overwrite, got {error}: {path}") from error
        if not isinstance(found, dict):
            raise UserError(f"expected what an earlier call wrote, or --overwrite, got another file: {path}")
        for name in settings:
            if found.get(name, settings[name]) != settings[name]:
                raise UserError(
                    f"{folder} holds predictions with {name} {found[name]}, not {settings[name]}: "
                    "give another --output, or --overwrite"
                )
    write_text(path, json.dumps(found | settings, indent=1) + "\n")


def _run(
    model: TrainedModel, how: Inference, batch: list[NamedImage]
) -> Iterator[tuple[NamedImage, np.ndarray, np.ndarray]]:
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.stack([image.pixels for image in batch])).permute(0, 3, 1, 2)
    labels, confidence = model.predict(pixels, how)
    yield from zip(batch, labels.numpy(), confidence.numpy(), strict=True)


@dataclass
class Output:
    """Writes the pictures of each image in the background, each whole or not at all."""

    folder: Path
    kinds: dict[str, str]  # folder -> suffix
    overwrite: bool
    palette: np.ndarray
    threshold: float
    written: int = 0
    there: int = 0  # images of which everything was there already
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WRITERS))
    _pending: deque[Future[None]] = field(default_factory=deque)

    def wants(self, name: str) -> bool:
        """Whether anything of this image is to be written."""
        wanted = bool(self._missing(name))
        self.there += not wanted
        return wanted

    def write(self, image: NamedImage, labels: np.ndarray, confidence: np.ndarray) -> None:
        """Write what is missing, later."""
        self._pending.append(self._pool.submit(self._write, image, labels, confidence))
        self._finish(WRITE_BEHIND)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish(0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _finish(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft().result()
            self.written += 1

    def _missing(self, name: str) -> list[Path]:
        paths = [self.folder / kind / f"{name}{suffix}" for kind, suffix in self.kinds.items()]
        return [path for path in paths if self.overwrite or not path.exists()]

    def _write(self, image: NamedImage, labels: np.ndarray, confidence: np.ndarray) -> None:
        from maskmatch.common.text_files import whole
        from maskmatch.inference import mask_pictures

        for path in self._missing(image.name):
            kind = path.relative_to(self.folder).parts[0]
            if kind == "labels":
                picture = mask_pictures.mask_picture(labels, self.palette)
            elif kind == "overlays":
                picture = mask_pictures.overlay(image.pixels, labels, self.palette)
            elif kind == "confidence":
                picture = mask_pictures.confidence_picture(confidence)
            else:
                picture = mask_pictures.mask_picture(
                    mask_pictures.certain(labels, confidence, self.threshold), self.palette
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as beside:
                picture.save(beside, format={".png": "PNG", ".jpg": "JPEG"}[path.suffix], quality=90)


def _list_pseudo_labels(folder: Path, images: list[tuple[Path, str]]) -> None:
    """Add `image mask` lines to pseudo_labels.txt, for --data.labeled."""
    from maskmatch.common.text_files import write_text

    path = folder / f"{PSEUDO_LABELS}.txt"
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n") if path.exists() else []
    for image, name in images:
        pair = image.absolute(), (folder / PSEUDO_LABELS / f"{name}.png").absolute()
        if set("\t\r\n") & set(f"{pair[0]}{pair[1]}"):
            print(f"not in the list, as its name cannot stand on a line: {str(image)!r}", file=sys.stderr)
        elif pair[1].exists():
            lines.append(f"{pair[0]}\t{pair[1]}")
    write_text(path, "".join(f"{line}\n" for line in dict.fromkeys(lines) if line))
