"""What follows from the images and masks of a folder: lists, classes, and how rare those are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_lines
from maskmatch.data.dataset import Pair
from maskmatch.data.listing.class_names import CLASSES_FILE
from maskmatch.planning.choice import Choice
from maskmatch.planning.folder import PATTERNS, Found, Stored, find, stored_by

RARE = 0.01  # share of the labelled pixels
FLOOD = 0.6
HELD_OUT = 5  # one mask in so many, at most


class DataChoices(NamedTuple):
    """What the data say, and what the machine's choices need of them."""

    choices: list[Choice]
    lists: dict[str, list[Pair]]  # part -> images
    stored: Stored


def data_choices(root: Path, lists: Path, yours: Mapping[str, Any]) -> DataChoices:
    """Look into `root`; `lists` is the folder that the held-out lists will be written to.

    Raises UserError where there are no masks, or they do not store a number for each class.
    """
    given = (yours.get("data.images"), yours.get("data.masks"))
    found = find(root, [(given[0] or "images/**/*", given[1] or "masks/**/*")] if any(given) else PATTERNS)
    stored = stored_by(found.labeled)
    held = held_out(stored.shown)
    parts = {
        "labeled": [pair for i, pair in enumerate(found.labeled) if i not in held],
        "unlabeled": found.unlabeled,
        "val": [pair for i, pair in enumerate(found.labeled) if i in held],
    }
    parts = {part: pairs for part, pairs in parts.items() if pairs}
    choices = [*_of_lists(root, lists, found, parts), *_of_masks(root, stored)]
    if not found.unlabeled:
        choices.append(Choice("method.supervised_only", True, "every image has a mask"))
    return DataChoices(choices, parts, stored)


def held_out(shown: np.ndarray) -> set[int]:
    """Indices of the masks to hold out, at most a fifth; every class keeps a mask to learn from.

    `shown`, bool [N, C], says which classes each mask shows. Masks of the rarest classes come first.
    """
    left, held = shown.sum(0), set[int]()
    seen = np.zeros(shown.shape[1], bool)
    while len(held) < max(1, len(shown) // HELD_OUT):
        free = [i for i in range(len(shown)) if i not in held and (left - shown[i] > 0)[shown[i]].all()]
        if not free:
            break
        best = max(free, key=lambda i: (((shown[i] & ~seen) / np.maximum(1, shown.sum(0))).sum(), -i))
        held.add(best)
        seen |= shown[best]
        left = left - shown[best]
    return held


def _of_lists(root: Path, lists: Path, found: Found, parts: dict[str, list[Pair]]) -> list[Choice]:
    what = f"{len(found.labeled)} of {len(found.labeled) + len(found.unlabeled)} images have a mask"
    choices = [
        Choice("data.name", "folder", what),
        Choice("data.root", str(root), "as given"),
        Choice("data.images", found.images, "where the images lie"),
        Choice("data.masks", found.masks, "where their masks lie"),
    ]
    reasons = {
        "labeled": f"{len(parts['labeled'])} masks to learn from",
        "unlabeled": f"{len(found.unlabeled)} images without a mask",
        "val": f"{len(parts.get('val', ()))} masks held out, at most a fifth: few masks make an unsure figure",
    }
    return choices + [Choice(f"data.{part}", str(lists / f"{part}.txt"), reasons[part]) for part in parts]


def _of_masks(root: Path, stored: Stored) -> list[Choice]:
    choices = []
    file = root / CLASSES_FILE
    names = [line for line in read_lines(file, "one class name on a line") if line.strip()] if file.is_file() else []
    named = len(names)
    if max(stored.values) >= (named or len(stored.values)):
        if named and named != len(stored.values):
            raise UserError(f"{file}: expected {len(stored.values)} names, as masks store so many values, got {named}")
        values = f"masks store {', '.join(map(str, stored.values[:8]))}"
        choices.append(Choice("data.mask_values", stored.values, values))
    if not named:
        choices.append(Choice("data.num_classes", len(stored.values), f"values in the masks, no {CLASSES_FILE}"))
    if stored.ignored:
        choices.append(Choice("data.ignore_values", [255], "255 stands among the classes"))
    least, most = stored.shares.min(), stored.shares.max()
    if least < RARE or most > FLOOD:
        reason = f"classes have {100 * least:.1f} to {100 * most:.0f} % of the labelled pixels"
        choices += [Choice("method.logit_adjustment", 0.5, reason), Choice("method.class_thresholds", True, reason)]
    return choices
