"""Before the first step: is every listed file there, whole, and what it is taken for?"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from maskmatch.batch import IGNORE_INDEX
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.files import read_raw_mask, reason
from maskmatch.errors import UserError

T = TypeVar("T")

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"


def check_dataset(dataset: Dataset, *, supervised_only: bool) -> None:
    """Check header and end of every listed file, and decode the masks of the labelled and validation images.

    Raises UserError for the first file that is missing, truncated or no image, and for the first mask whose
    size differs from its image's or that holds a value that is neither a class nor 255.
    """
    valid = (dataset.mask_table < dataset.num_classes) | (dataset.mask_table == IGNORE_INDEX)

    def check_decoded(pair: Pair) -> np.ndarray:
        size = check_file(pair.image)
        return _check_mask(pair, size, valid, dataset.num_classes)

    def check_files(pair: Pair) -> None:
        for path in filter(None, pair):
            check_file(path)

    present = sum(_each(check_decoded, dataset.labeled), np.zeros(256, bool))
    if dataset.num_classes > 1 and np.array_equal(np.flatnonzero(present), [0, IGNORE_INDEX]):
        raise UserError(
            f"mask values: expected 0..{dataset.num_classes - 1}, got only 0 and {IGNORE_INDEX} (which "
            f"means `ignore`; write 1 for the object) in all labelled masks: {dataset.labeled[0].mask}"
        )
    _each(check_decoded, dataset.val)
    _each(check_files, dataset.test if supervised_only else dataset.unlabeled + dataset.test)


def _each(check: Callable[[Pair], T], pairs: Sequence[Pair]) -> list[T]:
    """Run in threads; the error of the earliest pair is raised and the rest is dropped."""
    pool = ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)))
    try:
        return list(pool.map(check, pairs))
    finally:
        pool.shutdown(cancel_futures=True)


def check_file(path: Path) -> tuple[int, int]:
    """Width and height by the header of an image that ends as its format does; UserError otherwise."""
    try:
        with Image.open(path) as image:
            if not _ends_well(path, image.format):
                # Something may follow the end marker, so only decoding tells.
                image.load()
            if image.mode not in _EIGHT_BIT_MODES:
                raise UserError(f"expected 8 bits a channel, got mode {image.mode}: {path}")
            return image.size
    except FileNotFoundError as error:
        raise UserError(f"expected the listed file, found none: {path}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"expected a whole image file, got {reason(error)}: {path}") from error


def _ends_well(path: Path, image_format: str | None) -> bool:
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        tail = file.read()
    if image_format == "JPEG":
        return tail.rstrip(b"\0\r\n").endswith(_JPEG_END)
    return image_format == "PNG" and tail.endswith(_PNG_END)


def _check_mask(pair: Pair, size: tuple[int, int], valid: np.ndarray, num_classes: int) -> np.ndarray:
    """Compare a mask with the size (width, height) of its image and its values with the classes.

    Returns bool [256], the values that are present.
    """
    path = pair.mask
    if path is None:
        raise UserError(f"expected a mask for the labelled image, got none: {pair.image}")
    check_file(path)
    mask = read_raw_mask(path)
    if mask.shape != size[::-1]:
        got = f"{mask.shape[1]}x{mask.shape[0]}"
        raise UserError(
            f"mask size: expected its image's {size[0]}x{size[1]}, got {got}{_rotation(pair, mask)}: {path}"
        )
    present = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel() > 0
    wrong = np.flatnonzero(present & ~valid)
    if len(wrong):
        raise UserError(f"mask value: expected a class 0..{num_classes - 1} or {IGNORE_INDEX}, got {wrong[0]}: {path}")
    return present


def _rotation(pair: Pair, mask: np.ndarray) -> str:
    with Image.open(pair.image) as image:
        turned = image.getexif().get(0x0112, 1) >= 5 and image.size == mask.shape
    return " (the image has an EXIF orientation, which is not applied)" if turned else ""
