"""Files of a folder that its patterns leave out, perhaps against the user's mind: said, never decided upon."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import IMAGE_SUFFIXES
from maskmatch.data.listing.lists import DRAW_POLYGONS
from maskmatch.data.listing.overlap import named
from maskmatch.data.listing.pairing import Key, Pairing
from maskmatch.data.listing.patterns import Pattern

UNREAD = frozenset(
    {".jfif", ".jpe", ".jfi", ".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".dng", ".cr2", ".cr3"}
    | {".nef", ".arw", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".npy"}
)
"""Suffixes of images (or of masks) that are not read."""
_ONE_KIND = ({".jpg", ".jpeg", ".jfif", ".jpe", ".jfi"}, {".tif", ".tiff"})
SEARCHED = 100
"""JSON files that are looked into."""
_ENDS = 65536
"""Bytes at each end of such a file that are looked at."""


def leftovers(pairing: Pairing, listed: Iterable[Pair] = ()) -> list[str]:
    """A line for each kind of file that is neither an image nor a mask of one, and is like one.

    `listed` is what lists name besides.
    """
    pairs = [pairing.pair(image) for image in pairing.image_files]
    used = {path for pair in (*pairs, *listed) for path in pair}
    alone = [mask for mask in pairing.mask_files if mask not in used]
    bare = [pair.image for pair in pairs if pair.mask is None]
    nearly = list(_nearly(pairing, bare, alone))
    other = [mask for mask in alone if mask not in {mask for _, mask in nearly}]
    root = pairing.root
    lines = []
    if nearly:
        lines.append(
            f"{_count(len(nearly), 'mask')} not used, as only the case or the writing of accents in its name tells it "
            f"from an image's: {named(((mask, image) for image, mask in nearly), root)}"
        )
    if other:
        lines.append(
            f"{_count(len(other), 'mask')} not used, as no image of {pairing.images.text} (data.images) has its name: "
            f"{named(((mask,) for mask in other), root)}"
        )
    known = {*pairing.image_files, *pairing.mask_files, *used}
    for option, pattern in (("images", pairing.images), ("masks", pairing.masks)):
        found = [path for path in _of_other_suffix(pattern) if path not in known]
        known.update(found)
        if found:
            reads = ", ".join(sorted(pattern.suffixes or IMAGE_SUFFIXES))
            lines.append(
                f"{_count(len(found), 'file')} not used, as {pattern.text} (data.{option}) stands for {reads} here: "
                f"{named(((path,) for path in found), root)}"
            )
    if drawn := [path for image in bare if (path := image.with_suffix(".json")).is_file() and _holds(path, "shapes")]:
        lines.append(f"polygons in JSON are not read{DRAW_POLYGONS}: {named(((path,) for path in drawn), root)}")
    return lines


def polygons(pairing: Pairing) -> list[Path]:
    """JSON files that seem to hold polygons, beside the images or where COCO has them."""
    folders = {pairing.root, pairing.root / "annotations", *(image.parent for image in pairing.image_files)}
    found = [path for folder in sorted(folders) for path in sorted(folder.glob("*.json"))]
    return [path for path in found[:SEARCHED] if any(_holds(path, key) for key in ("shapes", "annotations", "regions"))]


def _holds(path: Path, key: str) -> bool:
    """Whether a JSON file seems to have a key, by its ends."""
    try:
        with path.open("rb") as file:
            ends = file.read(_ENDS)
            file.seek(max(0, path.stat().st_size - _ENDS))
            return f'"{key}"'.encode() in ends + file.read()
    except OSError:
        return False


def _count(number: int, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"{number} {what}s are"


def _nearly(pairing: Pairing, images: Sequence[Path], masks: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """(image, mask) that would belong together if case and the writing of accents did not count."""
    by_key = {_folded(key): image for image in images for key in pairing.keys_of_image(image)}
    for mask in masks:
        image = next((by_key[key] for key in map(_folded, pairing.keys_of_mask(mask)) if key in by_key), None)
        if image:
            yield image, mask


def _folded(key: Key) -> Key:
    return tuple(unicodedata.normalize("NFC", text).casefold() for text in key)


def _of_other_suffix(pattern: Pattern) -> list[Path]:
    """Files that match but for their suffix, where it is another of the same kind or one that is not read."""
    wanted = pattern.suffixes
    kinds = [kind for kind in _ONE_KIND if kind & wanted]
    return pattern.files_of_any_suffix(UNREAD.union(wanted, *kinds))
