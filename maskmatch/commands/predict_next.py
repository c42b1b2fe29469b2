"""`python -m maskmatch.predict RUN --next N`: the images whose masks would help the run most."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmatch.common.errors import UserError
from maskmatch.common.terminal import passing_progress
from maskmatch.common.text_files import writable_folder, write_text
from maskmatch.inference.active_learning import FARTHEST, Helpful, most_helpful
from maskmatch.inference.inputs import find_inputs

if TYPE_CHECKING:
    from maskmatch.inference.trained_model import TrainedModel

FILE = "next.json"
CLASSES = 2  # that a line names


def name_next(model: TrainedModel, images: Sequence[str], options: dict[str, Any]) -> None:
    """Print the most helpful of `images`, of the run's unlabelled ones where there are none; and write FILE.

    Raises:
        UserError: there is nothing to choose from, or FILE is there already.
    """
    output = Path(options["output"]) / FILE if options["output"] else None
    if output and output.exists() and not options["overwrite"]:
        raise UserError(f"{output} is there already: give another --output, or --overwrite")
    candidates, labeled = _images(model, images)
    failures: list[str] = []
    with passing_progress() as progress:
        task = progress.add_task("looking", total=len(candidates) + len(labeled))
        found = most_helpful(
            model.network,
            model.student,
            candidates,
            labeled,
            options["next"],
            skipped=failures.append,
            seen=lambda count: progress.advance(task, count),
        )
    for failure in failures:
        print(f"skipped: {failure}", file=sys.stderr)
    if not found:
        raise UserError(f"next: expected images without masks, found none among {len(candidates)} that can be read")
    for one in found:
        print(f"{one.path}\t{reason(one, model.class_names)}")
    if output:
        writable_folder(output.parent)
        write_text(output, json.dumps([_record(one, model.class_names) for one in found], indent=1) + "\n")


def reason(one: Helpful, class_names: Sequence[str]) -> str:
    """Why an image was chosen: how much of it is in doubt, between which classes, and how new it is."""
    order = sorted(range(len(class_names)), key=lambda index: -one.by_class[index])
    names = ", ".join(class_names[index] for index in order[:CLASSES])
    new = "" if one.distance == FARTHEST else f"; {one.distance:.2f} from the nearest with a mask or above"
    return f"{one.doubt:.1%} in doubt, most about {names}{new}"


def _record(one: Helpful, class_names: Sequence[str]) -> dict[str, Any]:
    by_class = dict(zip(class_names, one.by_class, strict=True))
    return {"image": str(one.path), "doubt": one.doubt, "doubt_by_class": by_class, "distance": one.distance}


def _images(model: TrainedModel, given: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The images to choose from, and those with masks, from which they should differ."""
    from maskmatch.data import load_dataset
    from maskmatch.run_files.versions import data_of

    candidates = [one.path for one in find_inputs(given) if not one.is_video]
    if given and not candidates:
        raise UserError(f"images: expected images, found none in {', '.join(given)}")
    try:
        dataset = load_dataset(data_of(model.run, model.config.data), supervised_only=False, incomplete=True)
    except UserError as error:
        if not given:
            raise
        print(f"warning: the images are not compared with those that have masks: {error}", file=sys.stderr)
        return candidates, []
    return candidates or [pair.image for pair in dataset.unlabeled], [pair.image for pair in dataset.labeled]
