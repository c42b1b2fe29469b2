"""Which mask is whose: `images/**/*.jpg` and `masks/**/*.png` belong together where the wildcards agree.

- Wildcards agree one by one, in order. Where the patterns have different numbers of them, their texts agree folder by
  folder, and a `**/` that stands for no folder is left out.
- Braces that share a choice, such as `{train,val}/images/*` and `{train,val}/masks/*`, agree as well; a brace of one
  pattern alone, or of suffixes, is free.
- Where the patterns have wildcards of different kinds, and a file of one may have the same path below its pattern's
  fixed folder as one of the other, that path must be the same: `images/1[0-3].png` and `masks/*.png`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from maskmatch.common.errors import UserError
from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import IMAGE_SUFFIXES
from maskmatch.data.listing.lists import is_path, under
from maskmatch.data.listing.patterns import Match, Pattern

Key = tuple[str, ...]
"""What an image and its mask have in common."""


class Pairing:
    """The images and masks of two patterns. What `masks` matches is no image, unless nothing else would be one."""

    def __init__(self, root: Path, images: str, masks: str) -> None:
        self.root = root
        self.images, self.masks = Pattern(root, images), Pattern(root, masks)
        self._shared = list(_shared_braces(self.images, self.masks))

    @cached_property
    def image_files(self) -> list[Path]:
        """The images of the pattern, sorted."""
        return self._files[0]

    @cached_property
    def mask_files(self) -> list[Path]:
        """The masks of the pattern, sorted."""
        return self._files[1]

    @cached_property
    def _files(self) -> tuple[list[Path], list[Path]]:
        images, masks = self.images.files(IMAGE_SUFFIXES), self.masks.files(IMAGE_SUFFIXES)
        both = set(images) & set(masks)
        if len(both) == len(images) < len(masks):  # such as *_image.png and *.png
            return images, [mask for mask in masks if mask not in both]
        return [image for image in images if image not in both], masks

    def images_of(self, pattern: str) -> list[Path]:
        """The images that another pattern matches, sorted."""
        masks = set(self.mask_files)
        return [path for path in Pattern(self.root, pattern).files(IMAGE_SUFFIXES) if path not in masks]

    def pair(self, image: Path) -> Pair:
        """An image with its mask, None where it has none; UserError where it has two."""
        found = {mask for key in self.keys_of_image(image) for mask in self._masks_by_key.get(key, ()) if mask != image}
        if len(found) > 1:
            first, second, *_ = sorted(found)
            raise UserError(
                f"expected one file for `{self._name(image)}` in {self.masks.text}, got two: {first}, {second}"
            )
        return Pair(image, next(iter(found), None))

    def find(self, name: str) -> Pair | None:
        """An image by its path under the root, or by an id: what the pattern's wildcards stand for."""
        path = under(self.root, name)
        ids = self._images_by_id
        found = [path] if path.is_file() else ids.get(name.strip("/")) or self._named(name)
        if len(found) > 1:
            raise UserError(f"expected one file for `{name}` in {self.images.text}, got two: {found[0]}, {found[1]}")
        if not found and not is_path(name):
            return None
        return self.pair(found[0] if found else path)

    def _named(self, name: str) -> list[Path]:
        """The images of an id with their suffix, `008.jpg`."""
        stem, suffix = os.path.splitext(name.strip("/"))
        images = self._images_by_id.get(stem, []) if suffix.lower() in IMAGE_SUFFIXES else []
        return [image for image in images if image.suffix == suffix]

    def refuse_shared_masks(self, pairs: Iterable[Pair]) -> None:
        """Raise UserError where two images have one mask."""
        owners: dict[Path, Path] = {}
        for image, mask in pairs:
            other = owners.setdefault(mask, image) if mask else image
            if other != image:
                raise UserError(
                    f"expected one image for each mask of {self.masks.text} (data.masks), got two: {other}, {image}: "
                    f"{mask} (a list file, `image mask` on a line, may give one mask to several images)"
                )

    def keys_of_image(self, image: Path) -> Iterator[Key]:
        """Its keys; its mask has one of them."""
        match = self.images.match(image)
        if match or self._shared:
            return self._keys(match, 0)
        return iter([("path", self.images.below(image) or "")])  # of another pattern, such as that of data.val

    def keys_of_mask(self, mask: Path) -> Iterator[Key]:
        """Its keys; it belongs to the image with one of them."""
        return self._keys(self.masks.match(mask), 1)

    def _keys(self, match: Match | None, side: int) -> Iterator[Key]:
        if match is None:
            return
        braces = tuple(match.braces[both[side]] for both in self._shared)
        kinds = self.images.kinds, self.masks.kinds
        own, other = (self.images, self.masks)[:: -1 if side else 1]
        # Below a free brace a path says nothing to the other pattern, and a part of a name is no more than a guess.
        guess = len(own.braces) > len(self._shared) and not set(match.parts) <= set(match.below.split("/"))
        if kinds[0] == kinds[1] or not (guess or other.has_place_for(match.below)):
            yield ("wildcards", *braces, *match.wildcards)
            if len(kinds[0]) != len(kinds[1]):
                yield ("folders", *braces, *match.parts)
        if kinds[0] != kinds[1]:
            yield ("path", *braces, match.below)

    def _name(self, image: Path) -> str:
        match = self.images.match(image)
        return match.name or match.below if match else image.name

    @cached_property
    def _masks_by_key(self) -> dict[Key, list[Path]]:
        found = defaultdict(list)
        for mask in self.mask_files:
            for key in self.keys_of_mask(mask):
                found[key].append(mask)
        return found

    @cached_property
    def _images_by_id(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for image in self.image_files:
            if match := self.images.match(image):
                for name in {match.name, match.below}:
                    found[name].append(image)
        return found


def _shared_braces(images: Pattern, masks: Pattern) -> Iterator[tuple[int, int]]:
    """Indices of the braces of both patterns that must have matched the same."""
    left = dict(enumerate(masks.braces))
    for index, choices in enumerate(images.braces):
        other = next((other for other, offered in left.items() if offered & choices), None)
        if other is not None:
            del left[other]
            yield index, other
