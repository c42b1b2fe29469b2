"""Reading image and mask files with Pillow, in whatever way they are stored."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.data.decoding.limits import MOST_PIXELS, SHARE, most_pixels

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "JPEG2000", "PPM"})
"""What a file may be, whatever its suffix. Pillow knows others, and starts Ghostscript to draw an EPS."""
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# What Pillow warns of in damaged files either becomes an error here or does not matter.
warnings.filterwarnings("ignore", module=r"PIL\.")

COLORS = 2**24
"""Length of a mask table whose masks hold colours."""

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 turn the image by a quarter
JPEG_END = b"\xff\xd9"
READABLE_MASK = "a readable mask"
MANY_PIXELS = 2**22
"""Nobody asks for the free memory for fewer."""
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class FileError(UserError):
    """One file cannot be used. The message ends with its path."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(f"{message}: {path}")
        self.path = path


class TooLargeError(FileError):
    """One file has more pixels than are read."""


class Header(NamedTuple):
    """What an image file says of itself before it is decoded."""

    height: int  # as stored
    width: int
    format: str  # Pillow's name of it, such as JPEG
    mode: str  # Pillow's name of the pixels, such as RGB
    orientation: int  # of EXIF, 1 (upright) to 8

    def size(self, mask_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(height, width) of what `read_image` returns for this file."""
        turned = self.orientation >= 5 and not self.as_stored(mask_size)
        return (self.width, self.height) if turned else (self.height, self.width)

    def as_stored(self, mask_size: tuple[int, int] | None) -> bool:
        """Whether the orientation is left alone: where the mask fits the image as it is stored alone."""
        stored = (self.height, self.width)
        return self.orientation >= 5 and mask_size == stored and mask_size != stored[::-1]


@contextmanager
def opened(path: Path, expected: str = "a readable image", content: bytes | None = None) -> Iterator[Image.Image]:
    """A file (or its content, where it was read already) as a Pillow image: every file is opened here.

    Raises FileError for whatever goes wrong, here or with the image, and TooLargeError for too many pixels.
    """
    if content is None:
        refuse_no_file(path, expected)
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            if image.format not in FORMATS:
                raise FileError(f"expected {expected}, got {image.format}", path)
            _refuse_too_large(image.width * image.height, path)
            yield image
    except FileError:
        raise
    except Exception as error:  # on damaged files the decoders raise what they like
        raise FileError(f"expected {expected}, got {reason(error)}", path) from error


def _refuse_too_large(pixels: int, path: Path) -> None:
    if pixels > MANY_PIXELS and pixels > (most := most_pixels()):
        memory = "" if most == MOST_PIXELS else f", whose decoding takes {SHARE:.0%} of the free memory"
        raise TooLargeError(
            f"expected an image of at most {most:,} pixels{memory}, got {pixels:,} "
            "(training leaves it out with data.on_error skip)",
            path,
        )


def refuse_no_file(path: Path, expected: str) -> None:
    """Refuse folders, devices and pipes, which might never end."""
    if path.exists() and not path.is_file():
        raise FileError(f"expected {expected}, got no regular file", path)


def read_bytes(path: Path, what: str = "image") -> bytes:
    """A file's content."""
    refuse_no_file(path, f"a readable {what}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"expected a readable {what}, got {reason(error)}", path) from error


def read_header(path: Path, content: bytes) -> Header:
    """The header of a file's content; images of more than 8 bits a channel are refused."""
    with opened(path, content=content) as image:
        return header_of(image, path)


def header_of(image: Image.Image, path: Path) -> Header:
    """`read_header` of an opened file."""
    if image.mode not in EIGHT_BIT_MODES:
        raise FileError(f"expected 8 bits a channel, got mode {image.mode}", path)
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation not in range(1, 9):
        orientation = 1
    return Header(image.height, image.width, image.format or "", image.mode, orientation)


def read_image(path: Path, mask_size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image to uint8 [H, W, 3], RGB, upright as a viewer shows it.

    Where its EXIF orientation turns it by a quarter, and `mask_size` (height, width) fits the image as it is
    stored and not as it is shown, it is left as it is stored.
    """
    content = read_bytes(path)
    return decode(content, path, read_header(path, content), mask_size)


def decode(content: bytes, path: Path, header: Header, mask_size: tuple[int, int] | None = None) -> np.ndarray:
    """`read_image` of a file's content and header."""
    upright = header.orientation == 1 or header.as_stored(mask_size)
    if upright and header.format == "JPEG" and header.mode in ("L", "RGB") and content.endswith(JPEG_END):
        # OpenCV needs two thirds of Pillow's time, but would pass over what is missing of a file that was cut.
        with suppress(cv2.error):  # which has limits of its own, by OPENCV_IO_MAX_IMAGE_PIXELS
            flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
            if image is not None:
                return image
    with opened(path, content=content) as opened_image:
        if not upright:
            ImageOps.exif_transpose(opened_image, in_place=True)
        return _colors(opened_image)


def _colors(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3], RGB."""
    colors = np.empty((image.height, image.width, 3), np.uint8)
    for rows in strips(image.height, image.width):
        colors[rows] = np.asarray(_rows(image, rows).convert("RGB"))
    return colors


def _rows(image: Image.Image, rows: slice) -> Image.Image:
    whole = rows == slice(0, image.height)
    return image if whole else image.crop((0, rows.start, image.width, rows.stop))


def strips(height: int, width: int) -> Iterator[slice]:
    """Rows that are worked on at a time: all of a small image's, few of a large one's, for the sake of memory."""
    count = max(1, MANY_PIXELS // max(1, width))
    for start in range(0, height, count):
        yield slice(start, min(height, start + count))


def read_mask(path: Path, table: np.ndarray) -> np.ndarray:
    """Decode a mask to uint8 [H, W] of class indices, by `table`: what is stored -> class.

    Its length says what is stored: 256 or 65536 for numbers (palette indices too), COLORS for colours. A table of
    uint8 knows all values; in one of uint16 those above 255 are neither a class nor ignored, and refused.
    """
    return classes_of(read_stored_mask(path, colors=len(table) == COLORS), table, path)


def classes_of(stored: np.ndarray, table: np.ndarray, path: Path) -> np.ndarray:
    """What a mask stores, [H, W], as class indices, uint8 [H, W]."""
    if stored.size and int(stored.max()) >= len(table):
        expected = f"expected at most {len(table) - 1}, got {stored.max()}"
        raise FileError(f"mask value: {expected} (16 bits? data.mask_values lists the value of each class)", path)
    if table.dtype == np.uint8:
        return cv2.LUT(stored, table) if stored.dtype == np.uint8 and len(table) == 256 else table[stored]
    classes = np.empty(stored.shape, np.uint8)
    for rows in strips(*stored.shape):
        found = table[stored[rows]]
        unknown = found > IGNORE_INDEX
        if unknown.any():
            got = value_text(int(stored[rows][unknown][0]), colors=len(table) == COLORS)
            raise FileError(f"mask value: expected a class or what is ignored, got {got}", path)
        classes[rows] = found
    return classes


def value_text(value: int, *, colors: bool) -> str:
    """A stored value as the user knows it."""
    return f"[{value >> 16}, {value >> 8 & 255}, {value & 255}]" if colors else str(value)


def read_pair(image: Path, mask: Path, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask, uint8 [H, W, 3] and [H, W]; not yet compared in size."""
    target = read_mask(mask, table)
    return read_image(image, (target.shape[0], target.shape[1])), target


def mask_size(path: Path) -> tuple[int, int]:
    """Height and width of a mask, by its header."""
    with opened(path, READABLE_MASK) as image:
        return image.height, image.width


def read_stored_mask(path: Path, *, colors: bool) -> np.ndarray:
    """Decode what a mask stores, [H, W]: uint8 or uint16 numbers, or uint32 colours r << 16 | g << 8 | b."""
    content = read_bytes(path, "mask")  # at once: Pillow reads a small file in a dozen pieces
    with opened(path, READABLE_MASK, content) as image:
        if colors:
            return _packed_colors(image)
        stored = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
        return _numbers(stored, image, path, content)


def _packed_colors(image: Image.Image) -> np.ndarray:
    packed = np.empty((image.height, image.width), np.uint32)
    for rows in strips(*packed.shape):
        red, green, blue = np.moveaxis(np.asarray(_rows(image, rows).convert("RGB")).astype(np.uint32), -1, 0)
        packed[rows] = red << 16 | green << 8 | blue
    return packed


def _numbers(stored: np.ndarray, image: Image.Image, path: Path, content: bytes) -> np.ndarray:
    mode = image.mode
    if mode in ("RGB", "RGBA"):
        if (stored[..., 1:3] != stored[..., :1]).any():
            hint = "data.mask_values lists the colour of each class"
            raise FileError(f"expected a mask of one 8-bit channel, got colours ({hint})", path)
        return stored[..., 0]
    if mode == "L":
        return stored // _gray_step(image, content)
    if mode in ("1", "P", "LA", "PA"):
        return stored.astype(np.uint8)
    if mode.startswith("I") and stored.size and stored.min() >= 0 and stored.max() < 2**16:
        return stored.astype(np.uint16)
    raise FileError(f"expected a mask of numbers from 0 to 65535, got mode {mode}", path)


def _gray_step(image: Image.Image, content: bytes) -> int:
    """What a decoded gray value must be divided by: Pillow spreads 2 and 4 bits of PNG and TIFF over 0..255."""
    bits = 8
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))[0]
    elif content.startswith(_PNG_SIGNATURE) and len(content) > 25 and content[25] == 0:
        bits = content[24]
    return {2: 85, 4: 17}.get(bits, 1)


def read_palette(path: Path | None) -> np.ndarray:
    """The colours of a palette image, uint8 [n, 3]; n is 0 where it has none or cannot be read."""
    if path is None:
        return np.zeros((0, 3), np.uint8)
    try:
        with opened(path) as image:
            colors = image.getpalette() or []
    except UserError:
        colors = []
    return np.array(colors, np.uint8).reshape(-1, 3)


def is_utf8(path: Path) -> bool:
    """Whether a name is text; of other bytes Python makes lone surrogates, which many libraries do not take."""
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def reason(error: Exception) -> str:
    """What an image library or the system says, on one line and without the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.UnidentifiedImageError):
        return "no known image format"
    return " ".join(str(error).split()) or type(error).__name__
