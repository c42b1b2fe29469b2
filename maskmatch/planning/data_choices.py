"""What follows from the images and masks of a folder: lists, classes, colours, flips, and help for rare classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data.dataset import Pair
from maskmatch.data.listing.layouts import read_part
from maskmatch.data.listing.lists import find_lists
from maskmatch.planning.choice import Choice
from maskmatch.planning.class_files import named_classes
from maskmatch.planning.classes import Classes, find_classes
from maskmatch.planning.earlier import Earlier, with_fewer_masks
from maskmatch.planning.folder import Found, find
from maskmatch.planning.held_out import PART, hold_out, unsure
from maskmatch.planning.looks import Looks, look_at
from maskmatch.planning.mask_reading import Masks, read_masks, sound_images
from maskmatch.planning.own_parts import Parts, divide, without_repeats
from maskmatch.planning.seen import Seen
from maskmatch.planning.views import colors, flips

RARE = 0.01  # share of the labelled pixels
FLOOD = 0.6


class DataChoices(NamedTuple):
    """What the data say, and what the machine's choices need of them."""

    choices: list[Choice]
    lists: dict[str, list[Pair]]  # part -> images
    notes: list[str]  # what was left out or is strange, a line each
    names: list[str]  # what the C classes are called in a sentence
    sizes: np.ndarray  # int64 [N, 2], height and width of the images with masks
    sides: np.ndarray  # float64 [C], the median side of each class's things in pixels; nan where there is none
    earlier: Earlier | None  # a run that knew fewer of the masks, and learned from none that val has
    added: int  # masks that it did not know


def data_choices(root: Path, lists: Path, yours: Mapping[str, Any], runs: Iterable[Earlier] = ()) -> DataChoices:
    """Look into `root`; `lists` is the folder that the lists of the parts will be written to, `runs` its earlier runs.

    Raises UserError, in one line, where there are no masks or nothing says what they store.
    """
    found = find(root, yours.get("data.images"), yours.get("data.masks"))
    given = _given(root, found, yours)
    parts = divide(found, given)
    spare = parts.spare if not parts.val and "labeled" in given else []  # others stand for images without a mask
    masked = list(dict.fromkeys([*parts.labeled, *parts.val, *spare]))
    named = named_classes(root, [pair.mask for pair in masked if pair.mask])
    stored = frozenset([*(named.values or ()), *named.ignored]) if named and named.colored else frozenset[int]()
    before = Seen(root)
    masks = read_masks(masked, before, stored)
    classes = find_classes(root, masks, named, yours)
    looks = look_at([mask.pair for mask in masks.read], classes.table, len(classes.names))
    unlabeled, faults = sound_images(parts.unlabeled, before)
    before.save()
    earlier, added = with_fewer_masks(runs, [mask.pair for mask in masks.read])
    seen = earlier.learned if earlier else frozenset[Path]()
    parts, reasons, notes = _with_val(parts._replace(unlabeled=unlabeled), masks, classes, looks, seen)
    if earlier and any(pair.image.resolve() in seen for pair in parts.val):
        notes.append(f"{added} masks were added since {earlier.run}, whose weights are not taken: it learned from val")
        earlier = None
    pairs = {part: getattr(parts, part) for part in ("labeled", "unlabeled", "val", "test")}
    pairs = {part: of_part for part, of_part in pairs.items() if of_part}
    choices = [
        *_of_folder(root, found),
        *(Choice(f"data.{part}", str(lists / f"{part}.txt"), reasons[part]) for part in pairs if part not in given),
        *classes.choices,
        *colors(looks, len(classes.names)),
        flips(looks.layouts, classes.called),
        *_of_balance(classes),
    ]
    if "unlabeled" not in pairs:
        choices.append(Choice("method.supervised_only", True, "every image has a mask: nothing to learn without"))
    left_out = [f"left out: {fault}" for fault in _few([*masks.faults, *faults])]
    return DataChoices(
        choices,
        {part: of_part for part, of_part in pairs.items() if part not in given},
        [*found.notes, *left_out, *classes.notes, *notes],
        classes.called,
        np.array([mask.size for mask in masks.read]),
        looks.sides,
        earlier,
        added,
    )


def _given(root: Path, found: Found, yours: Mapping[str, Any]) -> dict[str, tuple[Pair, ...]]:
    """The parts that the user's options name."""
    options = {
        part: yours[f"data.{part}"]
        for part in ("split", "labeled", "unlabeled", "val", "test")
        if yours.get(f"data.{part}")
    }
    names = find_lists(DataConfig(name="folder", root=str(root), **options), root)
    return {part: read_part(part, name, root, found.pairing.find, found.pairing) for part, name in names.items()}


def _with_val(
    parts: Parts, masks: Masks, classes: Classes, looks: Looks, seen: frozenset[Path]
) -> tuple[Parts, dict[str, str], list[str]]:
    """The parts without what could not be read and with a val, the reasons of the lists, and notes.

    What an earlier run has `seen` is not held out, if anything else can be.
    """
    place = {mask.pair: i for i, mask in enumerate(masks.read)}
    sound: dict[str, Any] = {
        part: [pair for pair in getattr(parts, part) if pair in place] for part in ("labeled", "val", "spare")
    }
    parts = parts._replace(**sound, notes=list(parts.notes))
    by = parts.sources.get("val", "")
    if not parts.val:
        yours = parts.sources.get("labeled") == "yours"
        pool = parts.spare if yours else parts.labeled
        rows = [place[pair] for pair in pool]
        held = hold_out([pair.image for pair in pool], classes.shown[rows], looks.thumbnails[rows], seen)
        by = f"held out, at most one in {PART}: {held.by}"
        val = [pool[i] for i in held.masks]
        parts = parts._replace(val=val, labeled=[pair for pair in parts.labeled if pair not in set(val)])
        parts = parts._replace(
            unlabeled=[one for one in parts.unlabeled if one.image not in {pair.image for pair in val}]
        )
        parts = without_repeats(parts)
        if not val:
            why = "none is outside your labelled list" if yours and not pool else held.by
            parts.notes.append(f"no mask is held out, as {why}: nothing tells how good the network is on other images")
    if not parts.labeled:
        raise UserError(f"data.labeled: expected masks that can be read, got none: {masks.faults[0]}")
    figure = unsure(classes.shown[[place[pair] for pair in parts.val]]) if parts.val else 0.0
    count = len(parts.labeled)
    reasons = {
        "labeled": f"{count} {'mask' if count == 1 else 'masks'} to learn from{_source(parts, 'labeled')}",
        "unlabeled": f"{len(parts.unlabeled)} images without a mask{_source(parts, 'unlabeled')}",
        "val": f"{len(parts.val)} masks, {by}; their mIoU is unsure by about +-{figure:.0f} points",
        "test": f"{len(parts.test)} images of {parts.sources.get('test')}, which nothing is learned from or chosen by",
    }
    return parts, reasons, parts.notes


def _source(parts: Parts, part: str) -> str:
    return f", of {parts.sources[part]}" if part in parts.sources else ""


def _of_folder(root: Path, found: Found) -> list[Choice]:
    total = len(found.labeled) + len(found.unlabeled)
    return [
        Choice("data.name", "folder", f"{len(found.labeled)} of {total} images have a mask"),
        Choice("data.root", str(root), "as given"),
        Choice("data.images", found.images, f"{total} images lie there"),
        Choice("data.masks", found.masks, f"{len(found.labeled)} masks lie there, named as their images"),
    ]


def _of_balance(classes: Classes) -> list[Choice]:
    """What keeps the pseudo-labels from losing a class."""
    shares = classes.shares
    least, most = (int(of(np.where(shares > 0, shares, np.nan))) for of in (np.nanargmin, np.nanargmax))
    found = f"{classes.called[least]} has {100 * shares[least]:.2g} % of the labelled pixels"
    found += f", {classes.called[most]} {100 * shares[most]:.0f} %"
    uneven = shares[least] < RARE or shares[most] > FLOOD
    alpha = Choice("method.logit_adjustment", 0.5 if uneven else 0.0, found)
    return [alpha, Choice("method.class_thresholds", True, "so that no class is lost from the pseudo-labels")]


def _few(lines: list[str]) -> list[str]:
    return lines[:5] + ([f"and {len(lines) - 5} more files"] if len(lines) > 5 else [])
