"""Small data sets on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.data import Pair

CLASSES = 4


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[[Sequence[tuple[int, int]]], list[Pair]]:
    """A function that writes random images of the sizes given, and masks with some pixels ignored."""

    def write(sizes: Sequence[tuple[int, int]]) -> list[Pair]:
        rng = np.random.default_rng(0)
        pairs = []
        for index, (height, width) in enumerate(sizes):
            mask = rng.integers(0, CLASSES + 1, (height, width)).astype(np.uint8)
            mask[mask == CLASSES] = IGNORE_INDEX
            image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            pair = Pair(tmp_path / f"{index}-image.png", tmp_path / f"{index}-mask.png")
            Image.fromarray(image).save(pair.image)
            Image.fromarray(mask).save(pair.mask)
            pairs.append(pair)
        return pairs

    return write
