"""Which masks are held out to choose a network by: whole scenes where there are some, and every class if it can be."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskmatch.data.listing.label_selection import spread
from maskmatch.planning.folder import IMAGE_WORDS

PART = 5  # one mask in so many is held out, at most
SPREAD_OF_IOU = 25  # points by which a class's IoU differs from image to image: 15 to 35 on photographs
ALIKE = 0.9  # distance of images of one scene, relative to that of images of two


class HeldOut(NamedTuple):
    """Indices of the held-out masks, ascending, and what they were chosen by."""

    masks: list[int]
    by: str


def hold_out(images: Sequence[Path], shown: np.ndarray, thumbnails: np.ndarray, seen: Collection[Path] = ()) -> HeldOut:
    """Choose at most a fifth of the masks; every class keeps one to learn from. None of fewer than five masks.

    Args:
        images: of the masks.
        shown: bool [N, C], the classes that each mask shows.
        thumbnails: float32 [N, D], the images in few numbers, to see whether names tell of scenes; NaN where unknown.
        seen: images, resolved, that are not held out if others can be.
    """
    most = len(images) // PART
    if not most:
        return HeldOut([], f"{len(images)} are too few to spare some")
    fixed = [image.resolve() in seen for image in images]
    whole = False
    for scenes, word in _ways(images, thumbnails):
        whole = True
        held = choose(shown, scenes, most, fixed)
        if 2 * len(held) >= most:
            groups = len({scenes[i] for i in held})
            return HeldOut(held, f"{groups} of {len(set(scenes))} {word}, whole: {', '.join(_some(scenes, held))}")
    alone = list(range(len(images)))
    held = choose(shown, alone, most, fixed) or choose(shown, alone, most)
    flatters = "each on its own, as no whole scene is small enough: their neighbours are learned from, so val flatters"
    return HeldOut(held, flatters if whole else "spread over the list, those of rare classes first")


def choose(shown: np.ndarray, groups: Sequence[object], most: int, fixed: Sequence[bool] = ()) -> list[int]:
    """Indices of at most `most` masks, ascending, in whole groups; every class keeps a mask that is not held out.

    None that is `fixed` is held out.
    Groups that show what no held-out mask shows yet come first, rare classes above all; then they are spread evenly.
    """
    members: dict[object, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    parts = [part for part in members.values() if not any(fixed[i] for i in part)] if fixed else list(members.values())
    if not parts:
        return []
    rank = {place: order for order, place in enumerate(spread(len(parts), min(most, len(parts)), "even", 0))}
    weights = 1 / np.maximum(1, shown.sum(0))
    left, seen, held = shown.sum(0), np.zeros(shown.shape[1], bool), list[int]()
    while True:
        free = [
            k
            for k, part in enumerate(parts)
            if len(part) + len(held) <= most
            and not set(part) & set(held)
            and (left - shown[part].sum(0) > 0)[shown[part].any(0)].all()
        ]
        if not free:
            return sorted(held)
        best = max(free, key=lambda k: (float(weights[shown[parts[k]].any(0) & ~seen].sum()), -rank[k]))
        held += parts[best]
        seen |= shown[parts[best]].any(0)
        left = left - shown[parts[best]].sum(0)


def unsure(shown: np.ndarray) -> float:
    """About one standard error of the mIoU of a val, in points, by how many of its masks show each class, bool [n, C].

    The IoU of a class over n_c images is unsure by SPREAD_OF_IOU / sqrt(n_c), and the classes by themselves.
    """
    counts = shown.sum(0)
    counts = counts[counts > 0]
    return float(SPREAD_OF_IOU * np.sqrt((1 / counts).sum()) / max(1, len(counts)))


def _ways(images: Sequence[Path], thumbnails: np.ndarray) -> list[tuple[list[str], str]]:
    """A scene for each image, by folders and then by names, where those tell of some."""
    folders = [str(image.parent) for image in images]
    names = [f"{image.parent}/{_prefix(image)}" for image in images]
    originals = [f"{image.parent}/{_original(image)}" for image in images]
    ways = [(folders, "folders")] if len(set(folders)) > 1 else []
    if 1 < len(set(names)) < len(names) and _look_alike(names, thumbnails):
        ways.append((names, "scenes by their names"))
    if len(set(originals)) < len(originals):
        ways.append((originals, "images with their copies"))
    return ways


def _prefix(image: Path) -> str:
    """What comes before the number of a frame: `0001TP_` of `0001TP_006690`."""
    stem = _original(image)
    for word in IMAGE_WORDS:
        stem = stem.removesuffix(f"_{word}")
    number = re.search(r"\d+(?=\D*$)", stem)
    return stem[: number.start()] if number else stem


def _original(image: Path) -> str:
    """The name without the `.rf.0f0a` by which Roboflow tells apart the copies that it makes of an image."""
    return re.sub(r"\.rf\.[0-9a-fA-F]+$", "", image.stem)


def _look_alike(scenes: Sequence[str], thumbnails: np.ndarray) -> bool:
    """Whether images of one scene are nearer to each other than to others: `2007_` before a number may be a year."""
    known = np.flatnonzero(~np.isnan(thumbnails).any(1))
    few, names = thumbnails[known], np.array(scenes)[known]
    ratios = []
    for i, name in enumerate(names):
        distances = np.linalg.norm(few - few[i], axis=1)
        same = names == name
        same[i] = False
        if same.any() and (names != name).any():
            ratios.append(distances[same].mean() / max(1e-6, distances[names != name].mean()))
    return bool(ratios) and float(np.median(ratios)) < ALIKE


def _some(scenes: Sequence[str], held: Sequence[int]) -> list[str]:
    """The last part of a few scenes' names."""
    names = list(dict.fromkeys(Path(scenes[i]).name for i in held))
    return names[:3] + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
