"""Images and masks in every way that they are stored, compared with the pixels that were saved."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import read_image, read_mask
from maskmatch.data.decoding.files import FileError
from maskmatch.data.decoding.mask_table import configured, identity, reduced_zero_label


def picture(height: int = 30, width: int = 44) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def png(path: Path, values: np.ndarray, bits: int, *, palette: bool) -> None:
    """A PNG of 1, 2, 4, 8 or 16 bits, gray or palette, written by the letter of its specification."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        ones = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = [np.packbits(row.ravel()).tobytes() for row in ones]
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, 0)
    colors = np.random.default_rng(1).integers(0, 256, (2 ** min(bits, 8), 3), np.uint8)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"PLTE", colors.tobytes()) if palette else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "JPEG", "tiff"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "1", "LA"])
def test_images_of_every_format_and_mode(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"image.{suffix}"
    image = Image.fromarray(picture()).convert(mode)
    try:
        image.save(path, quality=95)
    except OSError:
        pytest.skip(f"Pillow stores no {mode} as {suffix}")
    # What was saved, as it looks without its transparency; lossy formats come near to it.
    shown = np.asarray(image.convert("RGB"))
    found = read_image(path)
    assert found.shape == shown.shape and found.dtype == np.uint8
    if suffix in ("jpg", "JPEG", "webp"):  # which do badly with dithered pictures
        assert np.abs(found.astype(int) - shown).mean() < (25 if mode in ("1", "P") else 3)
    else:
        np.testing.assert_array_equal(found, shown)


def exif_image(path: Path, shown: np.ndarray, orientation: int) -> None:
    """A file that a viewer shows as `shown`: the stored pixels are what the tag's inverse makes of it."""
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
            6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
            8: lambda a: np.rot90(a, -1)}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo[orientation](shown))).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_image_is_shown_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    shown = picture()
    exif_image(tmp_path / f"a.{suffix}", shown, orientation)
    found = read_image(tmp_path / f"a.{suffix}")
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).mean() < 3
    upright = read_image(tmp_path / f"a.{suffix}", mask_size=(30, 44))
    np.testing.assert_array_equal(upright, found)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_size_leaves_it_as_stored(tmp_path: Path, orientation: int) -> None:
    exif_image(tmp_path / "a.png", picture(), orientation)
    stored = read_image(tmp_path / "a.png", mask_size=(44, 30))
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(stored, np.asarray(image))


def test_a_square_image_that_fits_both_ways_is_shown_upright(tmp_path: Path) -> None:
    exif_image(tmp_path / "a.png", picture(30, 30), 6)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", mask_size=(30, 30)), picture(30, 30))


@pytest.mark.parametrize("palette", [False, True], ids=["gray", "palette"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_masks_of_every_bit_depth_give_what_is_stored(tmp_path: Path, bits: int, palette: bool) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (9, 13))
    png(tmp_path / "a.png", values, bits, palette=palette)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", identity()), values)


def test_masks_of_16_bits(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 40000], [1000, 255, 0]])
    png(tmp_path / "a.png", values, 16, palette=False)
    table = configured(DataConfig(mask_values=[0, 1000, 40000]), identity())
    assert read_mask(tmp_path / "a.png", table).tolist() == [[0, 1, 2], [1, 255, 0]]
    with pytest.raises(FileError, match=r"at most 255, got 40000 .*data\.mask_values .*a\.png"):
        read_mask(tmp_path / "a.png", identity())
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.tif")
    assert read_mask(tmp_path / "a.tif", table).tolist() == [[0, 1, 2], [1, 255, 0]]


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "a.bmp")
    table = configured(DataConfig(mask_values=[0, 255]), identity())
    assert read_mask(tmp_path / "a.bmp", table).tolist() == [[0, 1], [1, 0]]
    ignoring = configured(DataConfig(mask_values=[255, 7], ignore_values=[0]), identity())
    assert read_mask(tmp_path / "a.bmp", ignoring).tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_masks_in_colours(tmp_path: Path, mode: str) -> None:
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 255]], np.uint8)
    image = Image.fromarray(colors[[[0, 1, 2], [2, 1, 0]]])
    (image.quantize(3) if mode == "P" else image.convert(mode)).save(tmp_path / "a.png")
    config = DataConfig(mask_values=[[128, 0, 0], [0, 128, 255]], ignore_values=[[0, 0, 0]])
    assert read_mask(tmp_path / "a.png", configured(config, identity())).tolist() == [[255, 0, 1], [1, 0, 255]]
    if mode != "P":
        with pytest.raises(FileError, match=r"got colours \(data\.mask_values .*a\.png"):
            read_mask(tmp_path / "a.png", identity())


def test_a_gray_mask_stored_in_three_channels(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(np.array([[0, 1], [2, 255]], np.uint8)[..., None], 3, 2)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", identity()).tolist() == [[0, 1], [2, 255]]


def test_classes_counted_from_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 150, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", reduced_zero_label()).tolist() == [[255, 0, 149, 255]]


@pytest.mark.parametrize(
    ("values", "ignored", "message"),
    [
        ([0, 0], None, "each value once"),
        ([0, 70000], None, "from 0 to 65535"),
        ([0, [1, 2, 3]], None, "all numbers or all colours"),
        ([[1], [2]], None, r"colours \[r, g, b\]"),
        ([[1, 2]], None, r"colours \[r, g, b\]"),
        ([[1, 2, 300]], None, r"colours \[r, g, b\]"),
        ([0, 1], [1], "each value once"),
        (None, [[1, 2, 3]], "expected numbers, as"),
        ([], None, "expected"),
    ],
)
def test_impossible_mask_values(values: list, ignored: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        configured(DataConfig(mask_values=values, ignore_values=ignored), identity())
