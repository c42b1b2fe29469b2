"""The images and masks of a data set, read from disk or from memory."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np

from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.decoding.files import (
    JPEG_END,
    FileError,
    Header,
    decode,
    mask_size,
    read_bytes,
    read_header,
    read_mask,
)

MEMORY_SHARE = 0.5
"""Part of the free memory that decoded images may fill."""

_PLAIN = {("JPEG", "L"), ("JPEG", "RGB"), ("PNG", "L"), ("PNG", "RGB")}  # what every decoder reads alike


class Source:
    """Reads images and masks, and keeps the decoded ones up to `budget` bytes; safe to use from several threads."""

    def __init__(self, dataset: Dataset, *, budget: int) -> None:
        self.table = dataset.mask_table
        named = [path for pair in dataset.labeled + dataset.unlabeled for path in pair if path]
        self.files = len(named) + len(dataset.truth)
        self._budget = self._left = budget
        self._kept: dict[Pair | Path, np.ndarray] = {}  # an image by its pair, as the mask may decide how it is turned
        self._headers: dict[Path, Header] = {}
        self._lock = threading.Lock()

    @property
    def keeps(self) -> bool:
        """Whether decoded images are kept."""
        return self._budget > 0

    def image(self, pair: Pair) -> np.ndarray:
        """The image, uint8 [H, W, 3], as its mask fits it; do not write to it."""
        kept = self._kept.get(pair)
        if kept is None:
            content = read_bytes(pair.image)
            header = self._header(pair, content)
            kept = self._keep(pair, decode(content, pair.image, header, _mask_size(pair, header)))
        return kept

    def mask(self, pair: Pair) -> np.ndarray:
        """The mask as class indices, uint8 [H, W]; do not write to it."""
        if pair.mask is None:
            raise FileError("expected a mask for the labelled image, got none", pair.image)
        kept = self._kept.get(pair.mask)
        return self._keep(pair.mask, read_mask(pair.mask, self.table)) if kept is None else kept

    def encoded(self, pair: Pair) -> tuple[bytes, tuple[int, int]]:
        """The image as a file that every decoder reads alike, and its (height, width)."""
        content = read_bytes(pair.image)
        header = self._header(pair, content)
        size = _mask_size(pair, header)
        upright = header.orientation == 1 or header.as_stored(size)
        cut = header.format == "JPEG" and not content.endswith(JPEG_END)  # or something follows: Pillow tells
        if upright and not cut and (header.format, header.mode) in _PLAIN:
            return content, (header.height, header.width)
        image = decode(content, pair.image, header, size)
        height, width = image.shape[:2]
        return b"P6 %d %d 255\n" % (width, height) + image.tobytes(), (height, width)

    def _header(self, pair: Pair, content: bytes) -> Header:
        """Kept, as reading a header costs something beside decoding a small file."""
        if pair.image not in self._headers:
            self._headers[pair.image] = read_header(pair.image, content)
        return self._headers[pair.image]

    def _keep(self, key: Pair | Path, decoded: np.ndarray) -> np.ndarray:
        if self._left <= 0:
            return decoded
        with self._lock:
            if key not in self._kept:
                self._left -= decoded.nbytes
                self._kept[key] = decoded
            if self._left <= 0:
                print(
                    f"data.cache ram: {len(self._kept)} of {self.files} images and masks fill the "
                    f"{self._budget / 1e9:.1f} GB that they may take; the others are decoded each time",
                    file=sys.stderr,
                )
        return decoded


def _mask_size(pair: Pair, header: Header) -> tuple[int, int] | None:
    """The size of the mask, where it decides how the image is turned."""
    return mask_size(pair.mask) if pair.mask and header.orientation >= 5 else None
