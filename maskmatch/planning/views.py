"""How images become training views: crop and scales by the sizes of images and things, colours, flips."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from maskmatch.planning.choice import Choice
from maskmatch.planning.looks import GRID, Looks

CROP_STEP = 32  # crops are multiples of it: what the deepest layer of most encoders sees as one pixel
SMALLEST_CROP = 64
LARGEST_PATCH = 32
STRONG, WITHOUT_HUE = [0.5, 0.5, 0.5, 0.25], [0.5, 0.5, 0.5, 0.0]
GRAYSCALE = 0.2
TOLD_BY_COLOR = 0.5  # recall above chance, as a part of what there is above chance
NOT_BY_GRAY = 0.2  # by how much less of it is left without colours
ONE_SIDE = 0.9  # share of a class's pixels in one half of the image
CONSISTENT = 10  # masks that must agree on it
LEFT = r"left|l|link(?:s|e[rsn]?)|gauche|izquierd[oa]|esquerd[oa]|sinistr[oa]|lew[yae]|слева|лев(?:ый|ая|ое)"
RIGHT = r"right|r|recht(?:s|e[rsn]?)|droite?|derech[oa]|direit[oa]|destr[oa]|praw[yae]|справа|прав(?:ый|ая|ое)"
LETTER = r"[^\W\d_]"


def crop_and_scales(
    sizes: np.ndarray, sides: np.ndarray, names: Sequence[str], *, stride: int, largest: int
) -> list[Choice]:
    """Crop size, scale range, and the patches of the masked view.

    Args:
        sizes: int [N, 2], height and width of each labelled image.
        sides: float [C], the median side of each class's things in pixels, nan where there is none.
        names: of the classes.
        stride: of the network, pixels an output pixel.
        largest: the largest side of a crop that the machine affords; a multiple of CROP_STEP.
    """
    height, width = np.median(sizes, 0)
    crop = [int(min(largest, max(SMALLEST_CROP, side // CROP_STEP * CROP_STEP))) for side in (height, width)]
    short, crop_short = min(height, width), min(crop)
    size = crop[0] if crop[0] == crop[1] else crop
    image = f"{height:.0f} x {width:.0f}"
    by_image = f"most images are {image} (height x width) and this machine affords {largest}"
    low, high, why = _scales(sides, names, stride)
    if low * short < crop_short / 2:
        low, high = 1.0, max(high, 2.0)
        why = f"the images are small beside the crop of {crop_short}"
    patch = min(LARGEST_PATCH, 2 ** round(math.log2(crop_short / 8)))
    return [
        Choice("data.crop_size", size, by_image),
        Choice("data.scale_range", [low, high], why),
        Choice("method.patch_size", patch, f"about an eighth of the crop's {crop_short}, at most {LARGEST_PATCH}"),
        Choice("method.mask_ratio", 0.7, f"{_hidden(crop, patch)} patches are hidden, as for the public data sets"),
    ]


def _scales(sides: np.ndarray, names: Sequence[str], stride: int) -> tuple[float, float, str]:
    """Smallest and largest scale: on average the smallest class's things are two strides, if twice the size will do."""
    if np.isnan(sides).all():
        return 0.5, 1.5, "the usual range"
    smallest = int(np.nanargmin(sides))
    side, two = float(sides[smallest]), 2 * stride
    found = f"half of {names[smallest]} lies in things of {side:.0f} pixels or less"
    if side >= two:
        return 0.5, 1.5, f"{found}, no smaller than two strides of the network, {two}"
    middle = min(1.5, math.ceil(4 * two / side) / 4)
    enough = "so they are enlarged" if middle * side >= two else "more than can be gained by enlarging"
    return middle - 0.5, middle + 0.5, f"{found}, and two strides of the network are {two}: {enough}"


def colors(looks: Looks, count: int) -> list[Choice]:
    """Colour jitter: without hue where a pixel's colour tells its class and its brightness does not."""
    by_color, by_gray = (100 * recall for recall in (looks.by_color, looks.by_gray))
    if math.isnan(by_color):
        return [
            Choice("data.jitter_strengths", STRONG, "strong; too few masks to see whether colours tell the classes"),
            Choice("data.grayscale", GRAYSCALE, "likewise"),
        ]
    chance = 1 / count
    color, gray = ((recall - chance) / (1 - chance) for recall in (looks.by_color, looks.by_gray))
    found = f"a pixel's colour alone finds {by_color:.0f} % of a class, its brightness {by_gray:.0f} %"
    found += f", chance {100 * chance:.0f} %"
    if color >= TOLD_BY_COLOR and color - gray >= NOT_BY_GRAY:
        return [
            Choice("data.jitter_strengths", WITHOUT_HUE, f"no change of hue, as colours tell the classes: {found}"),
            Choice("data.grayscale", 0.0, "colours tell the classes"),
        ]
    return [
        Choice("data.jitter_strengths", STRONG, f"strong, as colours do not decide: {found}"),
        Choice("data.grayscale", GRAYSCALE, "as colours do not decide"),
    ]


def flips(layouts: np.ndarray, names: Sequence[str]) -> Choice:
    """No mirror images where left and right are classes, or where a class keeps to one side."""
    why = _left_and_right(names) or _mirrored(layouts, names) or _one_sided(layouts, names)
    if why:
        return Choice("data.flip", 0.0, why)
    return Choice("data.flip", 0.5, f"no class keeps to the left or the right in {len(layouts)} masks")


def _left_and_right(names: Sequence[str]) -> str | None:
    """Two classes whose names differ in left and right alone."""
    plain = [unicodedata.normalize("NFKC", name).casefold() for name in names]
    lefts, rights = (
        [re.sub(side, "*", name) if re.search(side, name) else None for name in plain]
        for side in (rf"(?<!{LETTER})(?:{LEFT})(?!{LETTER})|左", rf"(?<!{LETTER})(?:{RIGHT})(?!{LETTER})|右")
    )
    for i, left in enumerate(lefts):
        for j, right in enumerate(rights):
            if i != j and left is not None and left == right:
                return f"a mirror image would make {names[i]} of {names[j]}"
    return None


def _mirrored(layouts: np.ndarray, names: Sequence[str]) -> str | None:
    """Two classes of which one lies where the other's mirror image does, and neither where its own does."""
    if len(layouts) < CONSISTENT // 2:
        return None
    means = layouts.mean(0).reshape(len(names), -1)
    mirror = layouts[..., ::-1].mean(0).reshape(len(names), -1)
    norms = np.maximum(1e-9, np.linalg.norm(means, axis=1))
    alike = mirror @ means.T / norms[:, None] / norms  # [C, C], cosines
    for i, j in combinations(range(len(names)), 2):
        if alike[i, j] > 0.8 and max(alike[i, i], alike[j, j]) < 0.4:
            return f"{names[i]} lies where the mirror image of {names[j]} does, in {len(layouts)} masks"
    return None


def _one_sided(layouts: np.ndarray, names: Sequence[str]) -> str | None:
    """A class that lies in one half of nearly all images."""
    halves = np.stack([layouts[..., : GRID // 2].sum((2, 3)), layouts[..., GRID // 2 :].sum((2, 3))])  # [2, n, C]
    total = halves.sum(0)
    for label, name in enumerate(names):
        shown = total[:, label] > 0
        if shown.sum() < CONSISTENT:
            continue
        for half, side in zip(halves[..., label], ("left", "right"), strict=True):
            share = half[shown] / total[shown, label]
            if (share > 0.5).all() and half.sum() > ONE_SIDE * total[:, label].sum():
                kept = half.sum() / total[:, label].sum()
                return f"{name} keeps to the {side} half in {shown.sum()} masks, with {kept:.0%} of its pixels"
    return None


def _hidden(crop: Sequence[int], patch: int) -> str:
    total = (crop[0] // patch) * (crop[1] // patch)
    return f"{round(0.7 * total)} of {total}"
