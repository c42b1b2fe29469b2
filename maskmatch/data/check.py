"""Before the first step: is every listed file there, whole, and what it is taken for?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from PIL import Image

from maskmatch.batch import IGNORE_INDEX
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.files import (
    COLORS,
    JPEG_END,
    FileError,
    Header,
    header_of,
    read_stored_mask,
    reason,
    refuse_no_file,
)
from maskmatch.errors import UserError

S = TypeVar("S")
T = TypeVar("T")

_PNG_END = b"IEND\xaeB`\x82"


class MaskValues(NamedTuple):
    """What a mask stores: its values, and how many pixels have each."""

    values: np.ndarray  # int64 [n], ascending; colours as r << 16 | g << 8 | b
    counts: np.ndarray  # int64 [n]


def check_dataset(dataset: Dataset, *, supervised_only: bool) -> None:
    """Check header and end of every listed file, and decode the masks of the labelled and validation images.

    Raises UserError for the first file that is missing, truncated or no image, and for the first mask whose
    size differs from its image's or that holds a value that is neither a class nor ignored.
    """

    def check_decoded(pair: Pair) -> MaskValues:
        return check_pair(pair, dataset)

    check_binary(dataset, list(each(check_decoded, dataset.labeled)))
    list(each(check_decoded, dataset.val))
    for part in (dataset.test,) if supervised_only else (dataset.unlabeled, dataset.test):
        list(each(check_files, part))


def each(check: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Run in threads, results in order; the error of the earliest item is raised and the rest is dropped."""
    pool = ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)))
    try:
        yield from pool.map(check, items)
    finally:
        pool.shutdown(cancel_futures=True)


def check_files(pair: Pair) -> None:
    """Header and end of an image, and of its mask where it has one."""
    check_image(pair.image)
    if pair.mask:
        _whole(pair.mask, lambda image: None)


def check_pair(pair: Pair, dataset: Dataset) -> MaskValues:
    """Header and end of an image, its decoded mask's size and values; returns what the mask stores."""
    header = check_image(pair.image)
    if pair.mask is None:
        raise FileError("expected a mask for the labelled image, got none", pair.image)
    _whole(pair.mask, lambda image: None)
    stored = read_stored_mask(pair.mask, colors=len(dataset.mask_table) == COLORS)
    _check_size(pair.mask, stored, header)
    found = _values(stored)
    wrong = wrong_values(found, dataset)
    if len(wrong):
        got = value_text(int(wrong[0]), dataset) + likely_cause(found, dataset, pair.mask)
        raise FileError(f"mask value: expected {_expected(dataset)}, got {got}", pair.mask)
    return found


def check_image(path: Path) -> Header:
    """The header of an 8-bit image that ends as its format does.

    Raises UserError for a file that is missing, cut off or no such image.
    """
    return _whole(path, lambda image: header_of(image, path))


def _whole(path: Path, read: Callable[[Image.Image], T]) -> T:
    refuse_no_file(path, "a whole image file")
    try:
        with Image.open(path) as image:
            if not _ends_well(path, image.format):
                # Something may follow the end marker, so only decoding tells.
                image.load()
            return read(image)
    except FileNotFoundError as error:
        raise FileError("expected the listed file, found none", path) from error
    except FileError:
        raise
    except Exception as error:  # on damaged files the decoders raise what they like
        raise FileError(f"expected a whole image file, got {reason(error)}", path) from error


def _ends_well(path: Path, image_format: str | None) -> bool:
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        tail = file.read()
    if image_format == "JPEG":
        return tail.rstrip(b"\0\r\n").endswith(JPEG_END)
    return image_format == "PNG" and tail.endswith(_PNG_END)


def _check_size(mask: Path, stored: np.ndarray, header: Header) -> None:
    """The mask must fit the image as a viewer shows it, or as it is stored."""
    height, width = stored.shape
    if header.size((height, width)) != (height, width):
        shown = header.size()
        turned = f" ({header.width}x{header.height} as stored)" if shown != (header.height, header.width) else ""
        raise FileError(f"mask size: expected its image's {shown[1]}x{shown[0]}{turned}, got {width}x{height}", mask)


def _values(stored: np.ndarray) -> MaskValues:
    if stored.dtype == np.uint8:  # the usual case, at a twentieth of the time
        counts = cv2.calcHist([stored], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        values = np.flatnonzero(counts)
        return MaskValues(values, counts[values])
    found, counts = np.unique(stored, return_counts=True)
    return MaskValues(found.astype(np.int64), counts)


def wrong_values(found: MaskValues, dataset: Dataset) -> np.ndarray:
    """The stored values that are neither a class nor ignored."""
    table = dataset.mask_table
    inside = found.values < len(table)
    meaning = table[np.where(inside, found.values, 0)]
    return found.values[~(inside & ((meaning < dataset.num_classes) | (meaning == IGNORE_INDEX)))]


def value_text(value: int, dataset: Dataset) -> str:
    """A stored value as the user knows it."""
    colored = len(dataset.mask_table) == COLORS
    return f"[{value >> 16}, {value >> 8 & 255}, {value & 255}]" if colored else str(value)


def _expected(dataset: Dataset) -> str:
    """The values that a mask may store, in few words."""
    classes = np.flatnonzero(dataset.mask_table < dataset.num_classes)
    if len(classes) == classes[-1] - classes[0] + 1:
        return f"a class {classes[0]}..{classes[-1]} or {IGNORE_INDEX}"
    values = ", ".join(value_text(int(value), dataset) for value in classes[:8])
    return f"one of {values}{', ...' if len(classes) > 8 else ''}"


def likely_cause(found: MaskValues, dataset: Dataset, mask: Path) -> str:
    """What probably went wrong with a mask's values, in parentheses, or nothing."""
    values, count = found.values.tolist(), dataset.num_classes
    if mask.suffix.lower() in (".jpg", ".jpeg"):
        return " (JPEG changes values: masks must be stored as PNG)"
    if len(dataset.mask_table) == COLORS:
        return " (data.mask_values and data.ignore_values list the colours that are known)"
    if len(values) == 2 and values[0] == 0 and count == 2:
        return f" (values 0 and {values[1]} only: a binary mask? set data.mask_values 0,{values[1]})"
    if dataset.name != "folder":
        return ""
    if values[-1] == count:
        return f" (counted from 1? set data.mask_values to [1, ..., {count}] and data.ignore_values to [0])"
    return f" (are there more than data.num_classes {count}? data.mask_values lists the value of each class)"


def check_binary(dataset: Dataset, found: Sequence[MaskValues]) -> None:
    """Masks of 0 and 255 pass as background and `ignore`: refuse them where they are all that there is."""
    present = set().union(*(mask.values.tolist() for mask in found))
    takes_255_as_ignored = dataset.mask_table[IGNORE_INDEX] == IGNORE_INDEX
    if dataset.num_classes > 1 and present == {0, IGNORE_INDEX} and takes_255_as_ignored:
        raise UserError(
            f"mask values: expected 0..{dataset.num_classes - 1}, got only 0 and {IGNORE_INDEX} in all labelled masks: "
            f"a binary mask? set data.mask_values 0,255: {dataset.labeled[0].mask}"
        )
