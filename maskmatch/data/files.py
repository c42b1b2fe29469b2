"""Reading image and mask files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from maskmatch.errors import UserError


def read_image(path: Path) -> np.ndarray:
    """Decode an image to uint8 [H, W, 3], RGB, as it is stored: an EXIF orientation is not applied."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"expected a readable image, got {reason(error)}: {path}") from error


def read_bytes(path: Path) -> bytes:
    """A file's content."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"expected a readable image, got {reason(error)}: {path}") from error


def image_size(content: bytes, path: Path) -> tuple[int, int]:
    """Width and height by the header in a file's content; `path` is named in the error."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"expected a readable image, got {reason(error)}: {path}") from error


def read_mask(path: Path, table: np.ndarray) -> np.ndarray:
    """Decode a mask to uint8 [H, W] of class indices: its stored values (palette indices too) by `table`."""
    return table[read_raw_mask(path)]


def read_raw_mask(path: Path) -> np.ndarray:
    """Decode a mask's stored values, uint8 [H, W]; a palette PNG gives its indices."""
    try:
        with Image.open(path) as image:
            mask = np.asarray(image)
            mode = image.mode
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"expected a readable mask, got {reason(error)}: {path}") from error
    if mask.ndim != 2 or mode not in ("1", "L", "P"):
        raise UserError(f"expected a mask of one 8-bit channel (gray or palette), got mode {mode}: {path}")
    return mask.astype(np.uint8)


def read_palette(path: Path | None) -> np.ndarray:
    """The colours of a palette image, uint8 [n, 3]; n is 0 where it has none or cannot be read."""
    try:
        with Image.open(path or "") as image:
            colors = image.getpalette() or []
    except (OSError, SyntaxError, ValueError):
        colors = []
    return np.array(colors, np.uint8).reshape(-1, 3)


def reason(error: Exception) -> str:
    """What an image library or the system says, without the path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
