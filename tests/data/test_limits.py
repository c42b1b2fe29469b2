"""Large images and large texts inside them are read; what is too large is named, and can be left out."""

from __future__ import annotations

import dataclasses
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from maskmatch.commands.check_data import main
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_dataset, load_dataset, make_loader, measurable, read_image, read_mask
from maskmatch.data.checking.preflight import check_image
from maskmatch.data.checking.survey import survey_dataset
from maskmatch.data.decoding import limits
from maskmatch.data.decoding.files import FileError, TooLargeError
from maskmatch.data.decoding.mask_table import configured, identity

TOO_LARGE = r"expected an image of at most 3,100 pixels.*got 3,\d+ .*on_error skip\): .*"


@pytest.fixture
def tiny_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No image of more than 3100 pixels."""
    monkeypatch.setattr("maskmatch.data.decoding.files.MANY_PIXELS", 1000)
    monkeypatch.setattr("maskmatch.data.decoding.files.most_pixels", lambda: 3100)


def texts(kind: str) -> dict[str, object]:
    """Options with which Pillow stores four megabytes in a PNG, which it then refuses to read."""
    info = PngImagePlugin.PngInfo()
    if kind == "zTXt":
        info.add_text("history", "edited " * 600_000, zip=True)
    elif kind == "iTXt":
        info.add_itxt("XML:com.adobe.xmp", "<x>edited</x> " * 300_000, zip=True)
    elif kind == "many":
        for index in range(70):
            info.add_text(f"layer {index}", "x" * 1_000_000, zip=True)
    else:
        return {"icc_profile": bytes(4_000_000)}
    return {"pnginfo": info}


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "many", "iCCP"])
def test_texts_of_any_length(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", **texts(kind))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "mask.png", **texts(kind))
    check_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", identity()), pixels[..., 0])


@pytest.mark.parametrize("read", [read_image, lambda path: read_mask(path, identity())], ids=["image", "mask"])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_that_unpacks_without_end(tmp_path: Path, kind: bytes, read: Callable[[Path], object]) -> None:
    """A file of 300 kB whose text has more bytes than memory need be spent on."""
    packer = zlib.compressobj()
    start = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = start + 2**8 * (packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH))
    text = b"a\0" + {b"iTXt": b"\1\0\0\0"}.get(kind, b"\0") + packed
    Image.new("L", (30, 20)).save(tmp_path / "small.png")
    content = (tmp_path / "small.png").read_bytes()
    chunk = struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])  # behind the header
    with pytest.raises(FileError, match=r"too large .*a\.png"):
        read(tmp_path / "a.png")


@pytest.mark.slow
def test_more_pixels_than_pillow_allows(tmp_path: Path) -> None:
    """180 megapixels, in a process whose memory is measured: no more than BYTES_A_PIXEL of it."""
    image = Image.new("L", (20_000, 9_000), 7)
    image.save(tmp_path / "a.png")
    script = (
        "import resource, sys; from pathlib import Path; from maskmatch.data import read_image\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = used(); pixels = read_image(Path(sys.argv[1]))\n"
        "print(pixels.shape, int(pixels.min()), int(pixels.max()), (used() - before) / (pixels.size / 3))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.png")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(9000, 20000, 3) 7 7 ")
    assert float(done.stdout.split()[-1]) < limits.BYTES_A_PIXEL


def test_the_limit_follows_from_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, most in ((12 * 4 * 10**6, 10**6), (10**15, limits.MOST_PIXELS)):
        monkeypatch.setattr(limits, "free_memory", lambda free=free: free)
        assert limits.most_pixels.__wrapped__() == most


def test_free_memory_is_that_of_the_machine() -> None:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    assert 0 < limits.free_memory() < total
    assert limits.free_memory() < 2 * available


@pytest.mark.usefixtures("tiny_limit")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_file_above_the_limit_is_named(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (63, 50)).save(tmp_path / f"a.{suffix}")
    Image.new("L", (60, 50)).save(tmp_path / f"b.{suffix}")
    for read in (read_image, check_image, lambda path: read_mask(path, identity())):
        with pytest.raises(TooLargeError, match=TOO_LARGE + rf"a\.{suffix}"):
            read(tmp_path / f"a.{suffix}")
        read(tmp_path / f"b.{suffix}")


@pytest.mark.usefixtures("tiny_limit")
def test_images_above_the_limit_are_left_out(folder: DataConfig, tmp_path: Path) -> None:
    """The sizes of the folder's images grow with their numbers: 3 and more have above 3100 pixels."""
    root = Path(str(folder.root))
    for part, numbers in {"labeled": (1, 2, 3), "unlabeled": (0, 5), "val": (2, 9)}.items():
        images = [next((root / "images").glob(f"{number}.*")).name for number in numbers]
        lines = [f"images/{image} masks/{number}.png\n" for image, number in zip(images, numbers, strict=True)]
        (root / f"{part}.txt").write_text("".join(lines))
    large = {"3.jpg", "5.jpg", "9.jpg"}
    dataset = load_dataset(folder, supervised_only=False)
    with pytest.raises(TooLargeError, match=r"images/3\.jpg"):
        check_dataset(dataset, supervised_only=False)
    assert (
        len([line for line in survey_dataset(dataset, supervised_only=False).errors if re.match(TOO_LARGE, line)]) == 3
    )

    left_out = check_dataset(dataset, supervised_only=False, skip=True).left_out
    assert {error.path.name for error in left_out} == large
    assert [pair.image.name for pair in measurable(dataset, left_out).val] == ["2.png"]
    found = survey_dataset(dataset, supervised_only=False, skip=True)
    lines = [line for line in found.warnings if re.match(f"left out: {TOO_LARGE}", line)]
    assert len(lines) == 3 and not [line for line in found.errors if "at most" in line]
    config = dataclasses.replace(folder, on_error="skip", loader="torch")
    options = {"global_batch": 2, "seed": 0, "device": torch.device("cpu"), "supervised_only": False}
    with make_loader(dataset, config, left_out=[error.path for error in left_out], **options) as loader:
        for _ in range(3):
            next(loader)
        assert {path.name for path in loader.skipped} == large


@pytest.mark.usefixtures("tiny_limit")
@pytest.mark.parametrize("part", ["labeled", "unlabeled", "val"])
def test_where_nothing_of_a_list_is_left(folder: DataConfig, part: str) -> None:
    dataset = load_dataset(folder, supervised_only=False)
    small, large = dataset.labeled, dataset.val
    lists = dict.fromkeys(("labeled", "unlabeled", "val"), small) | {part: large}
    dataset = dataclasses.replace(dataset, **lists)
    said = rf"data\.{part}: expected some images that are not too large, got none: {TOO_LARGE}"
    with pytest.raises(UserError, match=said):
        check_dataset(dataset, supervised_only=False, skip=True)
    assert [line for line in survey_dataset(dataset, supervised_only=False, skip=True).errors if re.match(said, line)]
    rest = dataclasses.replace(dataset, **{part: (*large, *small)})
    assert len(check_dataset(rest, supervised_only=False, skip=True).left_out) == len(large)


@pytest.mark.usefixtures("tiny_limit")
def test_check_data_says_it(folder: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--data.name", "folder", "--data.root", str(folder.root), "--data.num_classes", "4"]
    assert main([*options, "--output", str(tmp_path / "a")]) == 1
    assert re.search(rf"error: {TOO_LARGE}", capsys.readouterr().out)
    assert main([*options, "--data.on_error", "skip", "--output", str(tmp_path / "b")]) == 0
    assert re.search(rf"warning: left out: {TOO_LARGE}", capsys.readouterr().out)


def test_strips_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are decoded some rows at a time, to the same pixels and counts."""
    from maskmatch.data.checking.stored_values import count_values

    rng = np.random.default_rng(0)
    for mode in ("RGB", "L", "P", "RGBA", "CMYK"):
        Image.fromarray(rng.integers(0, 256, (37, 23, 3), np.uint8)).convert(mode).save(tmp_path / f"{mode}.tif")
    wide = rng.choice([0, 1000, 2000], (37, 23)).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    table = configured(DataConfig(mask_values=[0, 1000, 2000]), identity())

    def everything() -> list[np.ndarray]:
        images = [read_image(tmp_path / f"{mode}.tif") for mode in ("RGB", "L", "P", "RGBA", "CMYK")]
        return [*images, read_mask(tmp_path / "wide.png", table), *count_values(wide)]

    at_once = everything()
    monkeypatch.setattr("maskmatch.data.decoding.files.MANY_PIXELS", 100)
    for found, expected in zip(everything(), at_once, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(at_once[-3], wide // 1000)
