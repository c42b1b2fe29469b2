"""The parts that a folder has already, by its lists or its folders' names: val is taken, test is left alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskmatch.common.errors import UserError
from maskmatch.data.dataset import Pair
from maskmatch.data.listing.lists import read_list
from maskmatch.data.listing.overlap import shared
from maskmatch.planning.folder import Found

LIST_FOLDERS = ("", "splits", "ImageSets/Segmentation", "lists")
LIST_NAMES = {
    "labeled": ("labeled", "labelled"),
    "unlabeled": ("unlabeled", "unlabelled"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
    "train": ("train",),
}
VAL_FOLDER, TEST_FOLDER = re.compile(r"(val|valid|validation)\d*", re.I), re.compile(r"test(ing)?\d*", re.I)


class Parts(NamedTuple):
    """The images of a folder, each in one part; val is empty where it has yet to be held out."""

    labeled: list[Pair]
    unlabeled: list[Pair]
    val: list[Pair]
    test: list[Pair]
    spare: list[Pair]  # with masks, and not in the labelled list: val can be taken of them
    sources: dict[str, str]  # part -> where it comes from, where the folder or the user says so
    notes: list[str]


def divide(found: Found, given: Mapping[str, Sequence[Pair]]) -> Parts:
    """Put the images of a folder into parts.

    By the user's lists (`given`, part -> images), else by lists that lie in the folder, else by folders called val and
    test. Labelled are those with a mask; where there is a list called train those in it.

    Raises UserError where no labelled image is left.
    """
    listed, sources, notes = _lists(found)
    lists = listed | dict(given)
    sources |= dict.fromkeys(given, "yours")
    for part, named in (("val", VAL_FOLDER), ("test", TEST_FOLDER)):
        if part not in lists and (inside := _of_folder(found, named)):
            lists[part], sources[part] = inside, f"the folder {_folder(inside[0].image, found, named)}"
    val = [pair for pair in lists.get("val", ()) if pair.mask]
    apart = [*lists.get("val", ()), *lists.get("test", ())]
    masked = _outside(found.labeled, apart)
    spare: list[Pair] = []
    if "labeled" in lists:
        labeled = list(lists["labeled"])
        spare = _outside(masked, labeled)
    elif "train" in lists:
        labeled = [pair for pair in _outside(lists["train"], apart) if pair.mask]
        sources["labeled"] = sources["train"]
        if left := _outside(masked, labeled):
            notes.append(f"{len(left)} masks not used, as {sources['train']} has no such image: {left[0].mask}")
            apart += left
    else:
        labeled = masked
    unlabeled = lists.get("unlabeled")
    if unlabeled is None:
        everything = [*found.unlabeled, *spare, *(pair for pair in lists.get("train", ()) if not pair.mask)]
        unlabeled = list(dict.fromkeys(_outside(everything, [*apart, *labeled])))
    if not labeled:
        raise UserError(f"data.labeled: expected images with masks beside val and test, got none: {found.pairing.root}")
    parts = Parts(labeled, _bare(unlabeled), val, list(lists.get("test", ())), spare, sources, notes)
    return without_repeats(parts)


def _lists(found: Found) -> tuple[dict[str, list[Pair]], dict[str, str], list[str]]:
    """Part (and train) -> images of the lists that lie in the folder, and their files; a note on any that is none."""
    root = found.pairing.root
    for folder in LIST_FOLDERS:
        listed: dict[str, list[Pair]] = {}
        sources: dict[str, str] = {}
        notes: list[str] = []
        for part, names in LIST_NAMES.items():
            file = next((file for name in names if (file := root / folder / f"{name}.txt").is_file()), None)
            if file is None:
                continue
            try:
                pairs = _read(file, root, found.pairing.find, masked=part in ("labeled", "val"))
            except UserError as error:
                notes.append(f"a list not used: {error}")
                continue
            listed[part], sources[part] = pairs, str(file.relative_to(root))
        if listed or notes:
            return listed, sources, notes
    return {}, {}, []


def _read(file: Path, root: Path, find: Callable[[str], Pair | None], *, masked: bool) -> list[Pair]:
    pairs = [pair for pair in read_list(file, root, labeled=False, find=find) if pair.image.is_file()]
    pairs = [pair for pair in pairs if pair.mask and pair.mask.is_file()] if masked else pairs
    if not pairs:
        raise UserError(f"expected images of {root}, got none: {file}")
    return pairs


def without_repeats(parts: Parts) -> Parts:
    """Images of val and test, under whatever names, are not learned from."""
    apart = [*parts.val, *parts.test]
    if not apart:
        return parts
    notes = list(parts.notes)
    left: dict[str, Any] = {}
    for part in ("labeled", "unlabeled", "spare"):
        pairs: list[Pair] = getattr(parts, part)
        again = {image for _, image in shared(apart, pairs)}
        left[part] = [pair for pair in pairs if pair.image not in again]
        if again and part != "spare":
            notes.append(f"{len(again)} images left out of data.{part}, as val or test has them too: {min(again)}")
    return parts._replace(**left, notes=notes)


def _of_folder(found: Found, named: re.Pattern[str]) -> list[Pair]:
    """The images that lie in a folder of such a name; none where all do."""
    pairs = [*found.labeled, *found.unlabeled]
    inside = [pair for pair in pairs if _folder(pair.image, found, named)]
    return inside if len(inside) < len(pairs) else []


def _folder(image: Path, found: Found, named: re.Pattern[str]) -> str | None:
    """The folder below the root that an image lies in and that is called so."""
    parts = image.relative_to(found.pairing.root).parent.parts
    return next((part for part in parts if named.fullmatch(part)), None)


def _outside(pairs: Iterable[Pair], others: Iterable[Pair]) -> list[Pair]:
    known = {pair.image for pair in others}
    return [pair for pair in pairs if pair.image not in known]


def _bare(pairs: Iterable[Pair]) -> list[Pair]:
    return [Pair(pair.image, None) for pair in pairs]
