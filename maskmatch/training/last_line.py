"""The last line of a run without a baseline: how good it is, its worst class, and what to do next, for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskmatch.data import read_mask
from maskmatch.data.dataset import Dataset
from maskmatch.data.listing.class_names import called
from maskmatch.metrics.bootstrap import with_error
from maskmatch.training.run import Run


def last_line(run: Run, records: Sequence[dict[str, Any]]) -> str:
    """What the run's `records` of metrics.jsonl say of its best step; nothing where they are in another folder."""
    which = run.config.train.select
    best = [record for record in records if record["step"] == run.best_step and f"iou_{which}" in record]
    if not best:
        return ""
    record = best[-1]
    said = f"val mIoU is {with_error(run.best_miou, record.get(f'miou_error_{which}'), 3)} on {images_of_val(run)}"
    found = _worst(run.dataset, record[f"iou_{which}"])
    if found is None:
        return said
    worst, iou = found
    name = run.dataset.class_names[worst]
    said += f"; its worst class is {name}, with {iou:.3f}; the next best thing: "
    if run.dataset.unlabeled and not run.config.method.supervised_only:
        return f"{said}label images with {called(name)} (python -m maskmatch.predict RUN --next 5 names some)"
    return f"{said}more images with {called(name)}, and their masks"


def images_of_val(run: Run) -> str:
    """`12 held-out images`, or that they are what was learned from."""
    number = len(run.dataset.val)
    images = "image" if number == 1 else "images"
    if {pair.image for pair in run.dataset.val} <= {pair.image for pair in run.dataset.labeled}:
        return f"the {number} {images} it learned from"
    return f"{number} held-out {images}"


def _worst(data: Dataset, iou: Sequence[float | None]) -> tuple[int, float] | None:
    """The class with the lowest IoU, of those that val shows, and its IoU."""
    known = sorted((value, label) for label, value in enumerate(iou) if value is not None)
    for value, label in known:
        # Where it is not 0 some pixels are right, so there are some.
        if value > 0 or any(pair.mask and (read_mask(pair.mask, data.mask_table) == label).any() for pair in data.val):
            return label, value
    return None
