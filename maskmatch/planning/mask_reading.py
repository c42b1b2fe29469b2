"""What masks store, file by file; those that cannot be used are left out, with a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.data.checking.preflight import check_files, check_image
from maskmatch.data.checking.stored_values import count_values
from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import READABLE_MASK, FileError, opened, read_stored_mask, value_text
from maskmatch.planning.seen import Seen


class Mask(NamedTuple):
    """One labelled image."""

    pair: Pair
    values: np.ndarray  # int64 [n], ascending; colours as r << 16 | g << 8 | b
    counts: np.ndarray  # int64 [n], pixels of each
    size: tuple[int, int]  # height and width
    packed: bool  # whether the values are colours
    lossy: bool  # whether the file is a JPEG

    @property
    def file(self) -> str:
        """Its path, for a message."""
        return str(self.pair.mask)


class Masks(NamedTuple):
    """All that could be read."""

    read: list[Mask]
    colored: bool  # whether the values are colours
    faults: list[str]  # a line for each that could not


def read_masks(pairs: Sequence[Pair], seen: Seen, colors: frozenset[int] = frozenset()) -> Masks:
    """Decode the masks of `pairs`, in threads.

    Args:
        pairs: with masks.
        seen: what was found in them before.
        colors: what masks may store as colours, where a file says so: palettes are then read as theirs.

    Raises UserError where not one can be used.
    """
    if colors:
        read, faults = _read(pairs, seen, as_colors=True)
        if set(np.concatenate([mask.values for mask in read]).tolist()) & (colors - {0}):
            return Masks(read, True, faults)
    read, faults = _read(pairs, seen, as_colors=False)
    if any(_has_colors(mask) for mask in read):
        read, faults = _read(pairs, seen, as_colors=True)
        return Masks(read, True, faults)
    return Masks([mask._replace(values=mask.values & 255) if mask.packed else mask for mask in read], False, faults)


def sound_images(pairs: Sequence[Pair], seen: Seen) -> tuple[list[Pair], list[str]]:
    """The images that can be read, by their headers and ends, and a line for each other."""
    faults = seen.each("image", _fault_of_image, pairs, lambda fault: None if fault else True, lambda *_: None)
    return [pair for pair, fault in zip(pairs, faults, strict=True) if not fault], [fault for fault in faults if fault]


def smeared(masks: Masks, known: int | None) -> str | None:
    """The line to refuse masks with whose edges were blended or compressed; None for masks of plain values.

    `known` is the number of classes, where a file says so.
    """
    for mask in masks.read:
        many = len(mask.values) > max(8, 2 * (known or 0))
        rare = mask.counts < mask.counts.sum() / 200
        numbered = not masks.colored and mask.values[-1] < 200
        if many and rare.sum() > len(rare) / 2 and not numbered:
            what = "JPEG changes values" if mask.lossy else "blended edges?"
            kind = "colours" if masks.colored else "values"
            common = [value_text(int(value), colors=masks.colored) for value in _common(mask)]
            return (
                f"data.masks: expected the same value all over a class, got {len(mask.values)} {kind}, most of them in "
                f"few pixels ({what}): save masks as PNG, without smoothing, each pixel as the nearest of the plain "
                f"{kind}{', here ' if common else ''}{', '.join(common)}: {mask.file}"
            )
    return None


def _common(mask: Mask) -> np.ndarray:
    """Up to four values with a hundredth of the pixels, ascending."""
    order = np.argsort(-mask.counts, kind="stable")[:4]
    return np.sort(mask.values[[i for i in order if mask.counts[i] >= mask.counts.sum() / 100]])


def _read(pairs: Sequence[Pair], seen: Seen, *, as_colors: bool) -> tuple[list[Mask], list[str]]:
    what = "mask of colours" if as_colors else "mask"
    found = seen.each(what, lambda pair: _look(pair, as_colors=as_colors), pairs, _stored, _restored)
    read = [one for one in found if isinstance(one, Mask)]
    faults = [one for one in found if isinstance(one, str)]
    if not read:
        raise UserError(f"data.masks: expected masks that can be read, got {len(pairs)} of which none can: {faults[0]}")
    return read, faults


def _look(pair: Pair, *, as_colors: bool) -> Mask | str:
    try:
        if pair.mask is None:
            raise FileError("expected a mask, got none", pair.image)
        check_files(pair)
        header = check_image(pair.image)
        with opened(pair.mask, READABLE_MASK) as image:
            mode, lossy = image.mode, image.format == "JPEG"
        packed = as_colors or mode in ("RGB", "RGBA")
        stored = read_stored_mask(pair.mask, colors=packed)
        height, width = stored.shape
        if header.size((height, width)) != (height, width):
            shown = header.size()
            raise FileError(f"expected its image's {shown[1]}x{shown[0]}, got {width}x{height}", pair.mask)
        return Mask(pair, *count_values(stored), (height, width), packed, lossy)
    except UserError as error:
        return str(error)


def _stored(found: Mask | str) -> Any:
    """A mask for JSON; a fault may be gone the next time, as with more memory."""
    if isinstance(found, str):
        return None
    return [found.values.tolist(), found.counts.tolist(), list(found.size), found.packed, found.lossy]


def _restored(pair: Pair, kept: Any) -> Mask | str:
    values, counts, (height, width), packed, lossy = kept
    return Mask(pair, np.array(values, np.int64), np.array(counts, np.int64), (height, width), packed, lossy)


def _fault_of_image(pair: Pair) -> str | None:
    try:
        check_image(pair.image)
    except UserError as error:
        return str(error)
    return None


def _has_colors(mask: Mask) -> bool:
    red, green, blue = mask.values >> 16, mask.values >> 8 & 255, mask.values & 255
    return mask.packed and bool(((red != green) | (green != blue)).any())
