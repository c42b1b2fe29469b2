"""Before the first step: is every listed file there, whole, and what it is taken for?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.data.checking.stored_values import (
    MaskValues,
    count_values,
    expected_values,
    faults,
    likely_cause,
    wrong_values,
)
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.decoding.files import (
    COLORS,
    JPEG_END,
    FileError,
    Header,
    TooLargeError,
    classes_of,
    header_of,
    opened,
    read_stored_mask,
    value_text,
)

S = TypeVar("S")
T = TypeVar("T")

_PNG_END = b"IEND\xaeB`\x82"


class Checked(NamedTuple):
    """What the check found out about data that may be trained on."""

    masks: dict[str, list[MaskValues]]
    """Of the parts labeled and val, in their order."""
    left_out: list[TooLargeError]
    """Files that are too large, where those may be skipped."""


def check_dataset(dataset: Dataset, *, supervised_only: bool, skip: bool = False) -> Checked:
    """Check header and end of every listed file, and decode the masks of the labelled and validation images.

    With `skip`, files that have too many pixels to be read are let pass.

    Raises UserError for the first file that is missing, truncated or no image, for the first mask whose size differs
    from its image's or that holds a value that is neither a class nor ignored, for masks that together say nothing or
    do not agree, and for a list of which files that are too large leave nothing.
    """
    left_out: list[TooLargeError] = []

    def skipping(check: Callable[[Pair], T]) -> Callable[[Pair], T | None]:
        def checked(pair: Pair) -> T | None:
            try:
                return check(pair)
            except TooLargeError as error:
                if not skip:
                    raise
                left_out.append(error)
                return None

        return checked

    decode = skipping(lambda pair: check_pair(pair, dataset))
    masks = {part: [found for found in each(decode, getattr(dataset, part)) if found] for part in ("labeled", "val")}
    if fault := next(faults(dataset, masks), None):
        raise UserError(fault)
    for part in (dataset.test,) if supervised_only else (dataset.unlabeled, dataset.test):
        list(each(skipping(check_files), part))
    if fault := next(emptied(dataset, left_out), None):
        raise UserError(fault)
    return Checked(masks, left_out)


def emptied(dataset: Dataset, left_out: Iterable[TooLargeError]) -> Iterator[str]:
    """A line for each list of which files that are too large leave nothing."""
    gone = {error.path: error for error in left_out}
    for part in ("labeled", "unlabeled", "val"):
        pairs: tuple[Pair, ...] = getattr(dataset, part)
        if pairs and not any(gone.keys().isdisjoint(pair) for pair in pairs):
            error = next(gone[path] for path in pairs[0] if path in gone)
            yield f"data.{part}: expected some images that are not too large, got none: {error}"


def measurable(dataset: Dataset, left_out: Iterable[TooLargeError]) -> Dataset:
    """The data set without the validation images that were left out; the loader passes over the others by itself."""
    gone = {error.path for error in left_out}
    return replace(dataset, val=tuple(pair for pair in dataset.val if gone.isdisjoint(pair)))


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
    colors = len(dataset.mask_table) == COLORS
    stored = read_stored_mask(pair.mask, colors=colors)
    _check_size(pair.mask, stored, header)
    values, counts = count_values(stored)
    wrong = wrong_values(values, dataset)
    if len(wrong):
        got = value_text(int(wrong[0]), colors=colors) + likely_cause(values.tolist(), dataset, pair.mask)
        raise FileError(f"mask value: expected {expected_values(dataset)}, got {got}", pair.mask)
    classes = np.ascontiguousarray(classes_of(stored, dataset.mask_table, pair.mask))
    digest = blake2b(classes.data, digest_size=16, key=str(classes.shape).encode())
    return MaskValues(pair.mask, values, counts, digest.hexdigest())


def check_image(path: Path) -> Header:
    """The header of an 8-bit image that ends as its format does.

    Raises UserError for a file that is missing, cut off or no such image.
    """
    return _whole(path, lambda image: header_of(image, path))


def _whole(path: Path, read: Callable[[Image.Image], T]) -> T:
    if not path.exists():
        raise FileError("expected the listed file, found none", path)
    with opened(path, "a whole image file") as image:
        if not _ends_well(path, image.format):
            # Something may follow the end marker, so only decoding tells.
            image.load()
        return read(image)


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
