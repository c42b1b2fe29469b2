"""The two pictures of a survey: how often each class occurs, and labelled images with their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from maskmatch.common.drawing import drawable
from maskmatch.common.errors import UserError
from maskmatch.data.checking.survey import WORDS, Survey, class_shares
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.decoding.files import read_pair

TILE = 200
"""Side of the square that an image of the contact sheet fits into, in pixels."""
GAP = 4
COLUMNS, ROWS = 4, 6
IGNORED = (255, 255, 255)


def save_class_chart(path: Path, survey: Survey, dataset: Dataset) -> None:
    """Write a bar chart PNG: the share of each class in the pixels of every part that has masks."""
    parts = [part for part, found in survey.parts.items() if found.pixels[: dataset.num_classes].any()]
    count = dataset.num_classes
    figure = Figure(figsize=(7, 1.4 + max(0.28, 0.2 * len(parts)) * count), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    thickness = 0.8 / max(1, len(parts))
    for index, part in enumerate(parts):
        places = np.arange(count) + (index - (len(parts) - 1) / 2) * thickness
        axes.barh(places, 100 * class_shares(survey.parts[part], count), thickness * 0.92, label=WORDS[part])
    names = drawable(dataset.class_names)
    axes.set_yticks(range(count), names.texts, fontsize=8, fontfamily=names.family)
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xscale("symlog", linthresh=1)  # rare classes must stay visible
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("share of the labelled pixels in percent (logarithmic above 1)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    if parts:
        figure.legend(loc="outside upper center", ncols=len(parts), frameon=False, fontsize=9)
    figure.savefig(path)


def save_contact_sheet(path: Path, dataset: Dataset) -> None:
    """Write a PNG of labelled images, evenly spaced over their list, each with its mask's colours beside it."""
    chosen = _evenly(dataset.labeled, COLUMNS * ROWS // 2)
    tiles = [tile for pair in chosen for tile in _tiles(pair, dataset)]
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    heights = [max(tile.shape[0] for tile in row) + GAP for row in rows]
    sheet = np.full((sum(heights) + GAP, COLUMNS * (TILE + GAP) + GAP, 3), 255, np.uint8)
    for row, top in zip(rows, np.cumsum([GAP, *heights]), strict=False):
        for left, tile in zip(range(GAP, sheet.shape[1], TILE + GAP), row, strict=False):
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    Image.fromarray(sheet).save(path)


def _evenly(pairs: Sequence[Pair], count: int) -> list[Pair]:
    return [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)]


def _tiles(pair: Pair, dataset: Dataset) -> list[np.ndarray]:
    """The image, and the image under its mask's colours, both small; nothing where they cannot be read."""
    try:
        image, mask = read_pair(pair.image, pair.mask or pair.image, dataset.mask_table)
    except UserError:
        return []
    colors = np.full((256, 3), IGNORED, np.uint8)
    colors[: dataset.num_classes] = dataset.palette
    mixed = colors[mask] // 4 * 3
    if mask.shape == image.shape[:2]:
        mixed = mixed + image // 4
    scale = TILE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (image, mixed)]
