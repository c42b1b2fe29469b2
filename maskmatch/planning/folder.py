"""What a folder holds: where its images and masks lie, and what the masks store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.data.checking.preflight import each
from maskmatch.data.checking.stored_values import count_values
from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import read_stored_mask
from maskmatch.data.listing.pairing import Pairing

PATTERNS = (
    ("images/**/*", "masks/**/*"),
    ("photos/**/*", "masks/**/*"),
    ("JPEGImages/**/*", "SegmentationClass/**/*"),
    ("**/*", "**/*_mask.*"),
)
"""Of images and masks, the first that finds a mask is taken."""


class Found(NamedTuple):
    """The pairs of a folder, and by which patterns."""

    images: str
    masks: str
    labeled: list[Pair]
    unlabeled: list[Pair]


class Stored(NamedTuple):
    """What each labelled mask stores."""

    values: list[int]  # of the classes, ascending
    shown: np.ndarray  # bool [N, C], the classes that each mask shows
    shares: np.ndarray  # float64 [C], of the pixels that are a class
    ignored: bool  # whether 255 stands among indices
    side: int  # the median short side of the masks, pixels


def find(root: Path, patterns: Sequence[tuple[str, str]] = PATTERNS) -> Found:
    """The images and masks under `root`; UserError where no mask belongs to an image."""
    if not root.is_dir():
        raise UserError(f"data.root: expected a folder, found none: {root}")
    for images, masks in patterns:
        pairing = Pairing(root, images, masks)
        pairs = [pairing.pair(image) for image in pairing.image_files]
        labeled = [pair for pair in pairs if pair.mask]
        if labeled:
            return Found(images, masks, labeled, [pair for pair in pairs if not pair.mask])
    tried = ", ".join(f"{images} with {masks}" for images, masks in patterns)
    raise UserError(f"data.root: expected images with masks, found no mask of an image by {tried}: {root}")


def stored_by(pairs: Sequence[Pair]) -> Stored:
    """What the masks of `pairs` store; UserError where that is not one number a class."""
    masks = [pair.mask for pair in pairs if pair.mask]
    read = list(each(_look, masks))
    totals: Counter[int] = Counter()
    for stored, counts, _ in read:
        totals.update(dict(zip(stored.tolist(), counts.tolist(), strict=True)))
    ignored = IGNORE_INDEX in totals and set(totals) != {0, IGNORE_INDEX}
    values = sorted(value for value in totals if not (ignored and value == IGNORE_INDEX))
    if len(values) < 2 or len(values) > IGNORE_INDEX:
        raise UserError(
            f"data.masks: expected masks of two classes or more, got {len(values)} stored values in "
            f"{len(pairs)} masks: {pairs[0].mask}"
        )
    shown = np.array([np.isin(values, found) for found, *_ in read])
    pixels = np.array([totals[value] for value in values], float)
    side = int(np.median([side for *_, side in read]))
    return Stored(values, shown, pixels / pixels.sum(), ignored, side)


def _look(mask: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """A mask's values, their counts and its short side."""
    pixels = read_stored_mask(mask, colors=False)
    return *count_values(pixels), min(pixels.shape)
