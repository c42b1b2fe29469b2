"""What a data set is: lists of (image, mask) and a class table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

PARTS = ("labeled", "unlabeled", "val", "test")


class Pair(NamedTuple):
    """An image and its mask, None where it is not labelled."""

    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Dataset:
    """The parts of a data set and what their masks mean."""

    name: str
    root: Path
    class_names: tuple[str, ...]
    palette: np.ndarray  # uint8 [C, 3], colour of each class in pictures
    labeled: tuple[Pair, ...]
    unlabeled: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]
    mask_table: np.ndarray  # uint8, stored mask value -> class index or IGNORE_INDEX; see files.read_mask
    truth: Mapping[Path, Path] = field(
        default_factory=dict
    )  # masks of unlabelled images, to measure pseudo-labels with
    notes: tuple[str, ...] = ()  # lines on files that may have been left out against the user's mind

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)
