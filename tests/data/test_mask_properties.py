"""Masks in whatever way they are stored, written by the letter of their formats, against plain counts of what was
written: the decoded classes, check_data's histogram and the confusion matrix of evaluate."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskmatch import load
from maskmatch.commands.evaluate import main as evaluate
from maskmatch.config import DataConfig
from maskmatch.data import load_dataset, read_mask
from maskmatch.data.checking.survey import survey_dataset
from maskmatch.data.decoding.mask_table import configured, identity

BITS = {"png": (1, 2, 4, 8, 16), "tif": (1, 2, 4, 8, 16), "bmp": (8,), "rgb.png": (8,), "rgb.tif": (8,)}
PALETTES = {"png": (1, 2, 4, 8), "tif": (1, 2, 4, 8), "bmp": (8,)}


def packed(values: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Rows of numbers of so many bits, each row on whole bytes."""
    if bits == 16:
        return [row.astype(f"{order}u2").tobytes() for row in values]
    ones = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return [np.packbits(row.ravel()).tobytes() for row in ones]


def png(values: np.ndarray, bits: int, colors: np.ndarray | None) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0 if colors is None else 3, 0, 0, 0)
    rows = b"".join(b"\0" + row for row in packed(values, bits))
    palette = b"" if colors is None else chunk(b"PLTE", colors.astype(np.uint8).tobytes())
    parts = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(values: np.ndarray, bits: int, colors: np.ndarray | None, order: str) -> bytes:
    """TIFF 6.0, one strip without compression; `order` is < or >."""
    strip = b"".join(packed(values, bits, order))
    strip += bytes(len(strip) % 2)
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1 if colors is None else 3, 273: 8, 277: 1, 278: height}
    tags[279] = len(strip)
    count, after = len(tags) + (colors is not None), b""
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    if colors is not None:
        after = (colors.astype(np.uint16) * 257).T.astype(f"{order}u2").tobytes()
        place = 8 + len(strip) + 2 + 12 * count + 4
        entries.append(struct.pack(f"{order}HHII", 320, 3, 3 * 2**bits, place))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(strip))
    return head + strip + struct.pack(f"{order}H", count) + b"".join(entries) + bytes(4) + after


@dataclass
class Stored:
    """A mask's numbers, and how they are written."""

    numbers: np.ndarray
    form: str
    bits: int
    colors: np.ndarray | None = None  # of a palette
    order: str = "<"

    def write(self, folder: Path, name: str) -> Path:
        path = folder / f"{name}.{self.form.rpartition('.')[2]}"
        if self.form == "png":
            path.write_bytes(png(self.numbers, self.bits, self.colors))
        elif self.form == "tif":
            path.write_bytes(tiff(self.numbers, self.bits, self.colors, self.order))
        else:
            mask = Image.fromarray(self.numbers.astype(np.uint8))
            if self.form.startswith("rgb"):
                mask = mask.convert("RGB")
            elif self.colors is not None:
                mask.putpalette(self.colors.astype(np.uint8).tobytes())
            mask.save(path)
        return path


@st.composite
def ways(draw: st.DrawFn) -> tuple[str, int, bool, str]:
    """Format, bits, whether there is a palette, byte order."""
    form = draw(st.sampled_from(sorted(BITS)))
    bits = draw(st.sampled_from(BITS[form]))
    return form, bits, bits in PALETTES.get(form, ()) and draw(st.booleans()), draw(st.sampled_from("<>"))


@st.composite
def meanings(draw: st.DrawFn) -> tuple[dict[str, object], dict[int, int]]:
    """Options of a data set of three classes, and what its masks may store by them: number -> class or 255."""
    kind = draw(st.sampled_from(["indices", "ignore", "values", "both"]))
    if kind == "indices":
        return {"num_classes": 3}, {0: 0, 1: 1, 2: 2, 255: 255}
    if kind == "ignore":
        ignored = draw(st.lists(st.integers(3, 400), min_size=1, max_size=3, unique=True))
        return {"num_classes": 3, "ignore_values": ignored}, {0: 0, 1: 1, 2: 2} | dict.fromkeys(ignored, 255)
    numbers = draw(st.lists(st.sampled_from([*range(16), 85, 127, 128, 170, 254, 255, 256, 300, 65535]), min_size=5,
                            max_size=5, unique=True))  # fmt: skip
    classes = {number: index for index, number in enumerate(numbers[:3])}
    if kind == "values":
        return {"mask_values": numbers[:3]}, classes if 255 in classes else classes | {255: 255}
    return {"mask_values": numbers[:3], "ignore_values": numbers[3:]}, classes | dict.fromkeys(numbers[3:], 255)


@st.composite
def sets(draw: st.DrawFn, count: int) -> tuple[dict[str, object], list[tuple[Stored, np.ndarray]]]:
    """Options, and `count` masks with their classes. Every number is that of a class or ignored."""
    options, known = draw(meanings())
    masks = []
    for _ in range(count):
        form, bits, palette, order = draw(ways())
        fit = [number for number in known if number < 2**bits]
        if not fit:
            form, bits, palette, fit = "png", 16, False, list(known)
        seed = draw(st.integers(0, 2**32 - 1))
        rng = np.random.default_rng(seed)
        shown = draw(st.lists(st.sampled_from(fit), min_size=1, unique=True))
        numbers = rng.choice(np.array(shown), (draw(st.integers(1, 19)), draw(st.integers(1, 19))))
        classes = np.vectorize(known.__getitem__, otypes=[np.uint8])(numbers)
        colors = rng.integers(0, 256, (2**bits, 3)) if palette else None
        masks.append((Stored(numbers, form, bits, colors, order), classes))
    return options, masks


def write_set(root: Path, masks: list[tuple[Stored, np.ndarray]]) -> list[str]:
    """A folder of images with these masks, and the lines that list them."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    lines = []
    for index, (stored, _) in enumerate(masks):
        pixels = np.random.default_rng(index).integers(0, 256, (*stored.numbers.shape, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{index}-image.png")
        lines.append(f"{index}-image.png {stored.write(root, str(index)).name}\n")
    return lines


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("palette", [False, True], ids=["gray", "palette"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("form", ["png", "tif"])
def test_every_bit_depth_gives_what_is_stored(tmp_path: Path, form: str, bits: int, palette: bool, order: str) -> None:
    numbers = np.random.default_rng(bits).integers(0, 2**bits, (9, 13))
    colors = np.random.default_rng(1).integers(0, 256, (2**bits, 3)) if palette else None
    path = Stored(numbers, form, bits, colors, order).write(tmp_path, "a")
    np.testing.assert_array_equal(read_mask(path, identity()), numbers)


@given(found=sets(1))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_classes_are_those_that_were_written(tmp_path: Path, found: tuple) -> None:
    options, ((stored, classes),) = found
    table = configured(DataConfig(**options), identity())
    np.testing.assert_array_equal(read_mask(stored.write(tmp_path, "mask"), table), classes)


@given(found=sets(4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_histogram_is_a_plain_count(tmp_path: Path, found: tuple) -> None:
    options, masks = found
    root = tmp_path / "set"
    (root.parent / "labeled.txt").write_text("".join(write_set(root, masks)))
    config = DataConfig(name="folder", root=str(root), labeled=str(root.parent / "labeled.txt"), **options)
    report = survey_dataset(load_dataset(config, supervised_only=True, incomplete=True), supervised_only=True)
    written = np.concatenate([classes.ravel() for _, classes in masks])
    part = report.parts["labeled"]
    assert part.pixels.tolist() == np.bincount(written, minlength=256).tolist()
    assert part.images_with.tolist() == [sum(bool((c == index).any()) for _, c in masks) for index in range(256)]
    faults = [line for line in report.errors if "mask" in line]
    assert all("all are ignored" in line or "alike" in line or "binary mask" in line for line in faults)
    assert bool([line for line in faults if "all are ignored" in line]) == bool((written == 255).all())


@given(found=sets(3))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_confusion_matrix_is_a_plain_count(run: Path, tmp_path: Path, found: tuple) -> None:
    """Of a run that was trained with these options, whichever they are."""
    options, masks = found
    root, copy = tmp_path / "set", tmp_path / "run"
    lines = write_set(root, masks)
    (root / "val.txt").write_text("".join(lines))
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, symlinks=True)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"] |= {"root": str(root), "val": "val.txt"} | options
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    known = any((classes != 255).any() for _, classes in masks)
    assert evaluate([str(copy)]) == (0 if known else 2)
    if not known:
        return
    (file,) = (copy / "evaluation").glob("*.json")
    model, counted = load(copy), np.zeros((3, 3), np.int64)
    for index, (_, classes) in enumerate(masks):
        labels = model.predict(Image.open(root / f"{index}-image.png")).labels
        for truth, label in zip(classes.ravel().tolist(), labels.ravel().tolist(), strict=True):
            if truth != 255:
                counted[truth, label] += 1
    assert json.loads(file.read_text())["confusion"] == counted.tolist()
