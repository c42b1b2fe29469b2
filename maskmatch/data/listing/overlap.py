"""Images of the labelled list that are in val or test too, where they would measure what was learned by heart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.decoding.files import IMAGE_SUFFIXES

NAMED = 3
"""Files that a line names; it counts the others."""


def overlaps(dataset: Dataset) -> list[str]:
    """One line for val and one for test, where some of their images are labelled images."""
    lines = []
    for part in ("val", "test"):
        pairs: tuple[Pair, ...] = getattr(dataset, part)
        if found := shared(dataset.labeled, pairs):
            lines.append(
                f"{len(found)} of {len(pairs)} images of data.{part} are labelled too, which measures what was learned "
                f"by heart: {named(found, dataset.root)}"
            )
    return lines


def shared(labeled: Sequence[Pair], others: Sequence[Pair]) -> list[tuple[Path, Path]]:
    """The images of `others` that are one of `labeled`, each as (labelled, other).

    It may be one file (by its path, through links or not), one that holds the same bytes, or one of the same name and
    mask stored in another format.
    """
    first: dict[Hashable, Path] = {}
    for pair in labeled:
        for key in identities(pair):
            first.setdefault(key, pair.image)
    found = {}
    for pair in others:
        match = next((first[key] for key in identities(pair) if key in first), None)
        if match:
            found[pair.image] = match
    left = [pair.image for pair in others if pair.image not in found]
    found |= _of_equal_bytes([pair.image for pair in labeled], left)
    return [(found[pair.image], pair.image) for pair in others if pair.image in found]


def distinct(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs without those whose image is that of an earlier one, as `shared` knows it."""
    kept: list[Pair] = []
    known: set[Hashable] = set()
    sizes = Counter(_size(pair.image) for pair in pairs)
    for pair in pairs:
        keys = identities(pair) + ([_digest(pair.image)] if sizes[_size(pair.image)] > 1 else [])
        if known.isdisjoint(keys):
            kept.append(pair)
        known.update(keys)
    return kept


def identities(pair: Pair) -> list[Hashable]:
    """What two pairs of one image have in common, one of them at least."""
    return [_file(pair.image), picture_of(pair)]


def picture_of(pair: Pair) -> Hashable:
    """What the files of one picture in several formats have in common: their name and their mask."""
    image, mask = pair
    return (image.with_suffix(""), mask) if mask and image.suffix.lower() in IMAGE_SUFFIXES else image


def named(found: Iterable[tuple[Path, ...]], root: Path) -> str:
    """A few files by their paths under the root, the equal ones joined, and how many there are besides."""
    rows = [" = ".join(dict.fromkeys(_below(path, root) for path in paths)) for paths in found]
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(rows[:NAMED]) + more


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _of_equal_bytes(labeled: Sequence[Path], others: Sequence[Path]) -> dict[Path, Path]:
    """Other -> labelled; files of a size that no other has are not read."""
    by_size: dict[int, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, paths in enumerate((labeled, others)):
        for path in paths:
            by_size[_size(path)][side].append(path)
    found: dict[Path, Path] = {}
    for known, candidates in by_size.values():
        if known and candidates:
            digests = {_digest(path): path for path in reversed(known)}
            found |= {path: digests[digest] for path in candidates if (digest := _digest(path)) in digests}
    return found


def _file(path: Path) -> Hashable:
    """What all paths of one file have in common; a file that is not there, which the check says, has its path."""
    try:
        status = path.stat()
    except OSError:
        return path.absolute()
    return (status.st_dev, status.st_ino) if status.st_ino else path.resolve()


def _size(path: Path) -> int:
    """In bytes; -1 where there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> bytes | Path:
    """Of a file's bytes; the path itself where it cannot be read, which the check says."""
    try:
        return blake2b(path.read_bytes()).digest()
    except OSError:
        return path
