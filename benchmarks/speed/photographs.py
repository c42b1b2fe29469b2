"""A data set of drawn photographs: JPEGs with structure at every scale, and palette PNGs as masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write_photographs(root: Path, count: int, height: int, width: int, classes: int) -> list[str]:
    """Writes images/I.jpg and masks/I.png; gives the lines of a list that names all of them."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for index in range(count):
        image, mask = draw(index, height, width, classes)
        Image.fromarray(image).save(root / f"images/{index}.jpg", quality=90)
        stored = Image.fromarray(mask)
        stored.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        stored.save(root / f"masks/{index}.png")
    return [f"images/{index}.jpg masks/{index}.png" for index in range(count)]


def write_list(path: Path, lines: Sequence[str]) -> None:
    """A file for `data.labeled` and its like."""
    path.write_text("".join(f"{line}\n" for line in lines))


def draw(index: int, height: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture with structure at every scale, as photographs have, and a mask of blobs."""
    rng = np.random.default_rng(index)
    image = np.full((height, width, 3), 128, np.float32)
    for cells, amplitude in ((6, 54), (24, 30), (90, 16), (250, 6)):
        noise = rng.standard_normal((cells * 3 // 4, cells, 3)).astype(np.float32)
        image += amplitude * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(12):
        center, axes = (rng.integers(0, (width, height)).tolist(), rng.integers(10, 90, 2).tolist())
        ellipse = (center, axes, float(rng.integers(180)), 0, 360)
        cv2.ellipse(image, *ellipse, rng.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
        cv2.ellipse(mask, *ellipse, int(rng.integers(1, classes)), -1)
    image += 5 * rng.standard_normal(image.shape)
    return image.clip(0, 255).astype(np.uint8), mask
