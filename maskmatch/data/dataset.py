"""What a data set is: lists of (image, mask) and a class table; and how a list file is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskmatch.errors import UserError


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
    mask_table: np.ndarray  # uint8 [256], stored mask value -> class index or IGNORE_INDEX

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)


ReadLine = Callable[[list[str], Path], Pair | None]
"""A layout's reading of a list line's fields, under a root; None where they do not fit it."""


def plain_line(fields: list[str], root: Path) -> Pair | None:
    """`image mask`, or `image` alone."""
    if len(fields) > 2:
        return None
    paths = [under(root, name) for name in fields]
    return Pair(paths[0], paths[1] if len(paths) == 2 else None)


def under(root: Path, name: str) -> Path:
    """A path of a list file; some lists write it with a leading slash."""
    return root / name.lstrip("/")


def read_list(path: Path, root: Path, *, labeled: bool, read_line: ReadLine = plain_line) -> tuple[Pair, ...]:
    """Read a list file whose paths are under `root`. Masks are required if `labeled`, else dropped.

    Fields are parted by a tab where there is one, else by white space. Raises UserError naming file and line.
    """
    pairs = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected a list file of text, got {error}: {path}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.strip().split("\t") if "\t" in line.strip() else line.split()
        pair = read_line([field.strip() for field in fields], root)
        if pair is None or (labeled and pair.mask is None):
            form = "image mask" if labeled else "image"
            raise UserError(f"expected `{form}` on a line, got `{line.strip()}`: {path}, line {number}")
        pairs.append(pair if labeled else Pair(pair.image, None))
    return tuple(pairs)
