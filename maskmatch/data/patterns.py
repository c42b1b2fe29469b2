"""Images and masks by patterns: `images/**/*.jpg` and `masks/**/*.png` belong together where the wildcards agree."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from maskmatch.data.dataset import Pair
from maskmatch.data.files import IMAGE_SUFFIXES
from maskmatch.data.lists import under
from maskmatch.errors import UserError


def is_pattern(name: str) -> bool:
    """Whether an option names files by a pattern, not a list file."""
    return any(character in name for character in "*?")


def image_files(root: Path, pattern: str) -> list[Path]:
    """The image files that a pattern relative to `root` matches, sorted.

    `*` and `?` stay within a name, `**/` is any number of folders, `{jpg,png}` is either.
    """
    found: set[str] = set()
    for one in _alternatives(_anchored(root, pattern)):
        found.update(glob.glob(one, recursive=True))
    return [path for path in map(Path, sorted(found)) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


class Pairing:
    """Finds the mask of an image: the one for which the wildcards of both patterns stand for the same."""

    def __init__(self, root: Path, images: str, masks: str) -> None:
        self.root = root
        self.images, self.masks = images, masks

    def pair(self, image: Path) -> Pair:
        """An image with its mask, None where it has none."""
        return (
            Pair(image, self._mask_of.get(key)) if (key := _key(self.root, self.images, image)) else Pair(image, None)
        )

    def find(self, name: str) -> Pair | None:
        """An image by its path under the root, or by what the wildcards of the pattern stand for."""
        if Path(name).suffix:
            return self.pair(under(self.root, name))
        image = self._image_of.get(name.lstrip("/"))
        return self.pair(image) if image else None

    @cached_property
    def _image_of(self) -> dict[str, Path]:
        return self._indexed(self.images)

    @cached_property
    def _mask_of(self) -> dict[str, Path]:
        return self._indexed(self.masks)

    def _indexed(self, pattern: str) -> dict[str, Path]:
        index: dict[str, Path] = {}
        for path in image_files(self.root, pattern):
            key = _key(self.root, pattern, path)
            if key is None:
                continue
            if key in index:
                raise UserError(f"expected one file for `{key}` in {pattern}, got two: {index[key]}, {path}")
            index[key] = path
        return index


def _key(root: Path, pattern: str, path: Path) -> str | None:
    """What the wildcards of the pattern stand for in a path; suffixes do not count. None where it does not match."""
    for one in _alternatives(_anchored(root, pattern)):
        folder, _, name = one.rpartition("/")
        stem = name.rpartition(".")[0] or name
        if match := re.fullmatch(_regular_expression(f"{folder}/{stem}"), path.with_suffix("").as_posix()):
            return "".join(match.groups())
    return None


def _anchored(root: Path, pattern: str) -> str:
    return pattern if Path(pattern).is_absolute() else f"{glob.escape(root.as_posix())}/{pattern}"


def _alternatives(pattern: str) -> Iterator[str]:
    """`a.{b,c}` -> `a.b`, `a.c`."""
    head, opened, rest = pattern.partition("{")
    inside, closed, tail = rest.partition("}")
    if not (opened and closed):
        yield pattern
        return
    for choice in inside.split(","):
        yield from _alternatives(head + choice + tail)


def _regular_expression(pattern: str) -> str:
    """A glob pattern as a regular expression in which every wildcard is a group."""
    forms = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}
    tokens = re.split(r"(\*\*/|\*|\?|\[.\])", pattern)
    return "".join(forms.get(token) or re.escape(token[1] if _is_escape(token) else token) for token in tokens)


def _is_escape(token: str) -> bool:
    return len(token) == 3 and token.startswith("[")  # as glob.escape writes a special character
