"""Everything that can be found out about a data set by decoding all of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.data.checking.preflight import check_image, check_pair, each, emptied
from maskmatch.data.checking.stored_values import MaskValues, faults
from maskmatch.data.dataset import PARTS, Dataset, Pair
from maskmatch.data.decoding.files import FileError, TooLargeError, read_image
from maskmatch.data.listing.overlap import picture_of

WORDS = {"labeled": "labelled", "unlabeled": "unlabelled", "val": "val", "test": "test"}


@dataclass
class Part:
    """What the images of one list are."""

    images: int = 0
    masks: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) as a viewer shows them
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # by class, IGNORE_INDEX included
    images_with: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # images that show the class


@dataclass
class Survey:
    """Counts by part; what must be put right, and what may be on purpose. Each finding is one line."""

    parts: dict[str, Part]
    errors: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class _Examined:
    """One listed pair."""

    part: str
    pair: Pair
    size: tuple[int, int] | None = None  # (width, height)
    digest: bytes = b""  # of the decoded pixels
    values: MaskValues | None = None
    error: FileError | None = None


def survey_dataset(
    dataset: Dataset,
    *,
    supervised_only: bool,
    skip: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> Survey:
    """Decode every listed image and mask; `progress` is called after each pair.

    With `skip`, files that have too many pixels to be read are no errors.
    """
    listed = [(part, pair) for part in PARTS for pair in getattr(dataset, part)]
    examined = []
    for found in _examine_all(listed, dataset):
        examined.append(found)
        progress()
    failures = [found.error for found in examined if found.error]
    left_out = [error for error in failures if skip and isinstance(error, TooLargeError)]
    errors = [str(error) for error in failures if error not in left_out]
    masks = {part: [found.values for found in examined if found.part == part and found.values] for part in PARTS}
    errors += [*faults(dataset, masks), *emptied(dataset, left_out)]
    parts = {part: _summary([found for found in examined if found.part == part], dataset) for part in PARTS}
    leaks, repeated = _shared(examined)
    warnings = [
        *dataset.notes,
        *(f"left out: {error}" for error in left_out),
        *repeated,
        *_unseen_classes(parts, dataset),
    ]
    wanted = ("val",) if supervised_only else ("unlabeled", "val")
    warnings += [f"data.{part}: expected some images, got none" for part in wanted if not parts[part].images]
    return Survey(parts, errors + leaks, warnings)


def _examine_all(listed: list[tuple[str, Pair]], dataset: Dataset) -> Iterator[_Examined]:
    def examine_one(place: tuple[str, Pair]) -> _Examined:
        part, pair = place
        try:
            header = check_image(pair.image)
            digest = _digest(read_image(pair.image))
            size = header.size()[::-1]
        except FileError as error:
            return _Examined(part, pair, error=error)
        try:
            values = check_pair(pair, dataset) if pair.mask else None
        except FileError as error:
            return _Examined(part, pair, size, digest, error=error)
        return _Examined(part, pair, size, digest, values)

    return each(examine_one, listed)


def _digest(image: np.ndarray) -> bytes:
    pixels = np.ascontiguousarray(image).data
    return blake2b(pixels, digest_size=16, key=str(image.shape).encode()).digest()


def _summary(examined: list[_Examined], dataset: Dataset) -> Part:
    part = Part(images=len(examined), masks=sum(found.pair.mask is not None for found in examined))
    for found in examined:
        if found.size:
            part.sizes[found.size] += 1
        if found.values:
            classes = dataset.mask_table[found.values.values]
            np.add.at(part.pixels, classes, found.values.counts)
            part.images_with[np.unique(classes)] += 1
    return part


def _shared(examined: list[_Examined]) -> tuple[list[str], list[str]]:
    """Images that stand in several lists or twice in one, by path or by content: leaks, and what is only repeated."""
    leaks: list[str] = []
    repeated: list[str] = []
    for key, how in ((_path, ""), (_content, " under another name"), (_picture, " in another format")):
        places: dict[object, list[_Examined]] = defaultdict(list)
        for found in examined:
            places[key(found)].append(found)
        for first, *others in places.values():
            for other in others:
                if key is not _path and (not other.digest or _path(first) == _path(other)):
                    continue  # said already
                if key is _picture and _content(first) == _content(other):
                    continue
                where = "its list again" if first.part == other.part else f"the {WORDS[other.part]} list"
                line = f"{WORDS[first.part]} image is in {where}{how}: {first.pair.image}"
                if key is not _path:
                    line += f" = {other.pair.image}"
                leak = first.part == "labeled" and other.part in ("val", "test")
                (leaks if leak else repeated).append(line)
    return leaks, repeated


def _path(found: _Examined) -> object:
    return found.pair.image.resolve()


def _content(found: _Examined) -> object:
    return found.digest or found.pair.image


def _picture(found: _Examined) -> object:
    return picture_of(found.pair)


def _unseen_classes(parts: dict[str, Part], dataset: Dataset) -> list[str]:
    """Classes that no labelled image shows."""
    if not parts["labeled"].pixels.any():
        return []
    absent = [name for index, name in enumerate(dataset.class_names) if not parts["labeled"].pixels[index]]
    return [f"no labelled image shows class {name}" for name in absent]


def class_shares(part: Part, num_classes: int) -> np.ndarray:
    """Share of each class in a part's pixels that are not ignored, float64 [C]; NaN where it has no masks."""
    pixels = part.pixels[:num_classes].astype(float)
    with np.errstate(invalid="ignore"):
        return pixels / pixels.sum()


def ignored_share(part: Part) -> float:
    """Share of the pixels that are ignored."""
    return float(part.pixels[IGNORE_INDEX] / max(1, part.pixels.sum()))


def sizes(part: Part) -> str:
    """The sizes of a part in few words, such as `500x375` or `240x180 .. 500x375`."""
    found = sorted(part.sizes, key=lambda size: (size[0] * size[1], size))
    if not found:
        return "-"
    low, high = (f"{width}x{height}" for width, height in (found[0], found[-1]))
    return low if len(found) == 1 else f"{low} .. {high}"
