"""What the labelled pixels look like: sizes of things, whether colours tell classes, where in the image they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.data.checking.preflight import each
from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import read_pair

LOOKED_AT = 120  # images, spread over the list
FOLDS = 5
LEVELS = 8  # of a colour channel
GRAYS = 64
SAMPLED = 4096  # pixels of an image
GRID = 8  # cells along a side, for layouts and thumbnails


class Looks(NamedTuple):
    """Of the labelled images, or some of them."""

    sides: np.ndarray  # float64 [C], see `_sides`; nan of a class that none shows
    by_color: float  # mean recall of the classes by a pixel's colour alone, on images that it was not learned from
    by_gray: float  # likewise by its brightness
    layouts: np.ndarray  # float32 [n, C, GRID, GRID], share of each cell that is the class
    thumbnails: np.ndarray  # float32 [N, D], NaN of images that were not looked at


class _Look(NamedTuple):
    sides: dict[int, tuple[np.ndarray, np.ndarray]]  # class -> side and area of each of its things
    colors: np.ndarray  # int64 [C, LEVELS ** 3]
    grays: np.ndarray  # int64 [C, GRAYS]
    layout: np.ndarray
    thumbnail: np.ndarray


def look_at(pairs: Sequence[Pair], table: np.ndarray, count: int) -> Looks:
    """Look at up to LOOKED_AT of the `pairs`, whose masks mean what `table` says; `count` is C."""
    places = np.unique(np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs))).round().astype(int))
    colors = np.zeros((FOLDS, count, LEVELS**3), np.int64)
    grays = np.zeros((FOLDS, count, GRAYS), np.int64)
    things: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    layouts = []
    thumbnails = np.full((len(pairs), 3 * GRID**2), np.nan, np.float32)
    looks = each(lambda place: _look(pairs[place], table, count), places.tolist())
    for number, (place, look) in enumerate(zip(places, looks, strict=True)):
        fold = number * FOLDS // len(places) if len(places) >= FOLDS else number
        colors[fold] += look.colors
        grays[fold] += look.grays
        for label, found in look.sides.items():
            things.setdefault(label, []).append(found)
        layouts.append(look.layout)
        thumbnails[place] = look.thumbnail
    sides = np.array([_median(things[label]) if label in things else np.nan for label in range(count)])
    return Looks(sides, recall(colors), recall(grays), np.stack(layouts), thumbnails)


def recall(counts: np.ndarray) -> float:
    """Mean recall of classes that are told by their bin alone, each fold by what the others know.

    `counts`, int64 [folds, C, bins], are the pixels of each class in each bin. All classes are as likely as each other.
    The mean is over the classes that at least two folds show; nan where those are fewer than two.
    """
    known = np.flatnonzero((counts.sum(2) > 0).sum(0) >= 2)
    if len(known) < 2:
        return float("nan")
    counts = counts[:, known]
    right = np.zeros(len(known))
    for fold in counts:
        others = counts.sum(0) - fold + 1
        answer = (others / others.sum(1, keepdims=True)).argmax(0)
        right += np.where(answer == np.arange(len(known))[:, None], fold, 0).sum(1)
    return float((right / counts.sum((0, 2))).mean())


def _look(pair: Pair, table: np.ndarray, count: int) -> _Look:
    if pair.mask is None:
        raise UserError(f"expected a mask, got none: {pair.image}")
    image, target = read_pair(pair.image, pair.mask, table)
    if image.shape[:2] != target.shape:
        raise UserError(f"expected a mask of its image's size, got another: {pair.mask}")
    shown = [label for label in np.unique(target).tolist() if label < count]
    step = max(1, target.size // SAMPLED)
    pixels, labels = image.reshape(-1, 3)[::step].astype(np.int64), target.reshape(-1)[::step].astype(np.int64)
    pixels, labels = pixels[labels < count], labels[labels < count]
    red, green, blue = (pixels * LEVELS // 256).T
    brightness = (pixels @ np.array([299, 587, 114])) * GRAYS // 255001
    layout = np.zeros((count, GRID, GRID), np.float32)
    for label in shown:
        layout[label] = _cells((target == label).astype(np.float32))
    thumbnail = _cells(image.astype(np.float32)).ravel()
    colors = _histogram(labels, (red * LEVELS + green) * LEVELS + blue, count, LEVELS**3)
    grays = _histogram(labels, brightness, count, GRAYS)
    return _Look({label: _sides(target == label) for label in shown}, colors, grays, layout, thumbnail)


def _histogram(labels: np.ndarray, bins: np.ndarray, count: int, number: int) -> np.ndarray:
    return np.bincount(labels * number + bins, minlength=count * number).reshape(count, number)


def _cells(values: np.ndarray) -> np.ndarray:
    return cv2.resize(values, (GRID, GRID), interpolation=cv2.INTER_AREA)


def _sides(of_class: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The side (root of the area) and the area, in pixels, of each connected thing of a class."""
    stats = cv2.connectedComponentsWithStats(of_class.astype(np.uint8), connectivity=8)[2]
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.float64)
    return np.sqrt(areas), areas


def _median(things: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The side in which half of a class's pixels lie: single pixels along an edge do not count for things."""
    sides, areas = (np.concatenate(parts) for parts in zip(*things, strict=True))
    order = np.argsort(sides, kind="stable")
    half = np.searchsorted(np.cumsum(areas[order]), areas.sum() / 2)
    return float(sides[order][half])
