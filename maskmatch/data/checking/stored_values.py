"""What masks store: the values of each, which of them are wrong and why, and what all masks together say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.data.dataset import Dataset
from maskmatch.data.decoding.files import COLORS, strips, value_text


class MaskValues(NamedTuple):
    """What a mask stores: its values, and how many pixels have each."""

    mask: Path
    values: np.ndarray  # int64 [n], ascending; colours as r << 16 | g << 8 | b
    counts: np.ndarray  # int64 [n]
    digest: str  # of its pixels' classes


def count_values(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a mask, ascending, and how many pixels have each, both int64 [n]."""
    if stored.dtype == np.uint8:  # the usual case, at a twentieth of the time
        counts = cv2.calcHist([stored], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        values = np.flatnonzero(counts)
        return values, counts[values]
    totals: Counter[int] = Counter()
    for rows in strips(*stored.shape):
        found, counts = np.unique(stored[rows], return_counts=True)
        totals.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    values = np.array(sorted(totals), np.int64)
    return values, np.array([totals[value] for value in values.tolist()], np.int64)


def wrong_values(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The stored values that are neither a class nor ignored."""
    table = dataset.mask_table
    inside = values < len(table)
    meaning = table[np.where(inside, values, 0)]
    return values[~(inside & ((meaning < dataset.num_classes) | (meaning == IGNORE_INDEX)))]


def expected_values(dataset: Dataset) -> str:
    """The values that a mask may store, in few words."""
    classes, ignored = (
        np.flatnonzero(found)
        for found in (dataset.mask_table < dataset.num_classes, dataset.mask_table == IGNORE_INDEX)
    )
    if len(classes) == classes[-1] - classes[0] + 1 and len(ignored) <= 3:
        return " or ".join([f"a class {classes[0]}..{classes[-1]}", *map(str, ignored)])
    values = ", ".join(value_text(int(value), colors=len(dataset.mask_table) == COLORS) for value in classes[:8])
    return f"one of {values}{', ...' if len(classes) > 8 else ''}"


def likely_cause(values: Sequence[int], dataset: Dataset, mask: Path) -> str:
    """What probably went wrong with a mask's values, in parentheses, or nothing."""
    count, table = dataset.num_classes, dataset.mask_table
    if mask.suffix.lower() in (".jpg", ".jpeg"):
        return " (JPEG changes values: masks must be stored as PNG)"
    if len(table) == COLORS:
        return " (data.mask_values and data.ignore_values list the colours that are known)"
    if {*values} <= {0, 1} and table[255] < count and count == 2:
        return " (a mask of 0 and 1, perhaps of 1 bit, where others hold 0 and 255? store all alike)"
    if len(values) == 2 and values[0] == 0 and count == 2:
        return f" (values 0 and {values[1]} only: a binary mask? set data.mask_values 0,{values[1]})"
    if dataset.name != "folder":
        return ""
    if values[-1] == count:
        return (
            " (counted from 1? name what 0 is as well, such as background; or set data.mask_values to "
            f"[1, ..., {count}] and data.ignore_values to [0])"
        )
    return f" (are there more than data.num_classes {count}? data.mask_values lists the value of each class)"


def faults(dataset: Dataset, masks: Mapping[str, Sequence[MaskValues]]) -> Iterator[str]:
    """What is wrong with masks that are each in order, a line for each fault.

    `masks` are those of the parts labeled, val and test, as far as they are known.
    """
    labeled = masks.get("labeled", ())
    every = [mask for part in masks.values() for mask in part]
    if line := not_alike(dataset, labeled) or not_alike(dataset, every):
        yield line
    for part in ("labeled", "val"):
        if line := all_ignored(dataset, part, masks.get(part, ())):
            yield line


def all_ignored(dataset: Dataset, part: str, masks: Sequence[MaskValues]) -> str | None:
    """A line where no pixel of a list is of a class."""
    if not masks or any(_shows(mask, dataset).any() for mask in masks):
        return None
    return (
        f"data.{part}: expected some pixels of a class, got masks in which all are ignored ({IGNORE_INDEX}, or what "
        f"data.ignore_values says): {masks[0].mask}"
    )


def not_alike(dataset: Dataset, masks: Sequence[MaskValues]) -> str | None:
    """A line where masks hold their objects as 255, which is ignored: all of them, or some."""
    return _binary(dataset, masks) or _stored_in_two_ways(dataset, masks)


def _shows(mask: MaskValues, dataset: Dataset) -> np.ndarray:
    """bool [C], the classes that a mask shows."""
    return np.isin(np.arange(dataset.num_classes), dataset.mask_table[mask.values])


def _binary(dataset: Dataset, masks: Sequence[MaskValues]) -> str | None:
    """Masks of 0 and 255 pass as background and `ignore`: a fault where they are all that there is."""
    present = set().union(*(mask.values.tolist() for mask in masks))
    if present != {0, IGNORE_INDEX} or dataset.mask_table[IGNORE_INDEX] != IGNORE_INDEX:
        return None
    return (
        f"mask values: expected 0..{dataset.num_classes - 1}, got only 0 and {IGNORE_INDEX} in all masks: "
        f"a binary mask? set data.mask_values 0,255: {masks[0].mask}"
    )


def _stored_in_two_ways(dataset: Dataset, masks: Sequence[MaskValues]) -> str | None:
    """Masks of 0 and 255 among others that show objects as classes, none of which ignores anything beside an object."""
    ignored = dataset.mask_table[IGNORE_INDEX] == IGNORE_INDEX
    if dataset.name != "folder" or dataset.ignored_by_user or not ignored:
        return None
    objects = [mask for mask in masks if _shows(mask, dataset)[1:].any()]
    binary = [mask for mask in masks if mask.values.tolist() == [0, IGNORE_INDEX]]
    if not objects or not binary or any(IGNORE_INDEX in mask.values for mask in objects):
        return None
    return (
        f"mask values: expected all masks to store classes alike, got {len(objects)} with classes above 0, such as "
        f"{objects[0].mask}, and {len(binary)} of 0 and {IGNORE_INDEX}, which is ignored: store all alike, or say "
        f"--data.ignore_values '[255]' if nothing is known there: {binary[0].mask}"
    )
