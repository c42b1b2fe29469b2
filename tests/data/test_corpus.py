"""A corpus of broken inputs, each format with each kind of damage: one clear line each, which names the file.

What no reader can find is not in it: bytes changed in the middle of a JPEG, a WebP or anything uncompressed.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.commands.check_data import main
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_dataset, load_dataset
from maskmatch.data.checking.survey import survey_dataset

HEIGHT, WIDTH = 40, 56

Damage = Callable[[Path], object]


def keep(share: float) -> Damage:
    """Cut the file off, as an interrupted download does."""
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def overwrite(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def zero_from(share: float) -> Damage:
    """Zeros from here to the end, as a crash of the system leaves them."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        start = int(len(content) * share)
        path.write_bytes(content[:start] + bytes(len(content) - start))

    return damage


def wrong_signature(path: Path) -> None:
    path.write_bytes(b"\0\1\2\3" + path.read_bytes()[4:])


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone"))


ANY_FILE: dict[str, Damage] = {
    "missing": Path.unlink,
    "empty": overwrite(b""),
    "cut in the header": keep(0.01),
    "cut in the middle": keep(0.5),
    "cut near the end": keep(0.9),
    "a web page": overwrite(b"<!DOCTYPE html><title>404 Not Found</title>"),
    "wrong signature": wrong_signature,
    "all zeros": zero_from(0),
    "a folder": become_folder,
    "a pipe": become_pipe,
    "a dangling link": become_dangling_link,
}
IMAGES = ("jpg", "png", "webp", "tif", "bmp")
MASKS = {"gray.png": "L", "palette.png": "P", "bits.png": "1", "wide.png": "I;16", "gray.tif": "L", "gray.bmp": "L"}


def save(path: Path, values: np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    elif mode == "P":
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette(bytes(range(256)) * 3)
    else:
        image = Image.fromarray(values.astype(np.uint8) * (255 if mode == "1" else 1)).convert(mode)
    image.save(path)


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))


def mask() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2, (HEIGHT, WIDTH))


def resaved(values: np.ndarray, mode: str = "L") -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        save(path, values, mode)

    return damage


def as_jpeg(path: Path) -> None:
    """A mask that some tool stored with losses."""
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(mask()[::8, ::8], 8, 0), 8, 1)[:HEIGHT, :WIDTH].astype(np.uint8) * 9).save(
        buffer, "jpeg", quality=30
    )
    path.write_bytes(buffer.getvalue())


CONTENT: dict[str, Damage] = {
    "another size": resaved(mask()[:, 1:]),
    "turned": resaved(mask().T),
    "a class too many": resaved(np.where(np.arange(WIDTH) == 9, 2, mask())),
    "colours": resaved(photo(), "RGB"),
    "16 bits": resaved(mask() * 1000, "I;16"),
    "stored as JPEG": as_jpeg,
    "floating point": lambda path: Image.fromarray(mask().astype(np.float32)).save(path, "tiff"),
}

CASES: dict[str, tuple[str, Damage]] = {}
for part, suffix, kind in itertools.product(("labeled", "unlabeled"), IMAGES, ANY_FILE):
    if part == "labeled" or kind in ("cut in the middle", "missing", "a web page"):
        CASES[f"{part} image {suffix} {kind}"] = (f"{part}/image.{suffix}", ANY_FILE[kind])
for name, kind in itertools.product(MASKS, ANY_FILE):
    CASES[f"mask {name} {kind}"] = (f"masks/{name}", ANY_FILE[kind])
for kind, change in CONTENT.items():
    CASES[f"mask {kind}"] = ("masks/gray.png", change)
CASES["image 16 bits"] = ("labeled/image.png", resaved(mask() * 1000, "I;16"))
CASES["image floating point"] = (
    "labeled/image.tif",
    lambda path: Image.fromarray(mask().astype(np.float32)).save(path),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every format of image with every format of mask, nothing wrong with any."""
    root = tmp_path_factory.mktemp("corpus")
    for part, suffix in itertools.product(("labeled", "unlabeled"), IMAGES):
        save(root / part / f"image.{suffix}", photo())
    for name, mode in MASKS.items():
        save(root / "masks" / name, mask(), mode)
    return root


@pytest.fixture
def config(sound: Path, tmp_path: Path) -> DataConfig:
    """A copy of the sound files, and their lists."""
    for path in sound.rglob("*.*"):
        copy = tmp_path / path.relative_to(sound)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    masks = sorted(path.name for path in (tmp_path / "masks").iterdir())
    images = itertools.cycle(IMAGES)
    labeled = [f"labeled/image.{next(images)} masks/{name}\n" for name in masks]
    (tmp_path / "labeled.txt").write_text("".join(labeled))
    (tmp_path / "val.txt").write_text(labeled[0])
    (tmp_path / "unlabeled.txt").write_text("".join(f"unlabeled/image.{suffix}\n" for suffix in IMAGES))
    lists = {part: f"{part}.txt" for part in ("labeled", "unlabeled", "val")}
    return DataConfig(name="folder", root=str(tmp_path), num_classes=2, crop_size=32, **lists)  # type: ignore[arg-type]


def test_there_are_enough() -> None:
    assert len(CASES) >= 60


def test_nothing_is_wrong_with_the_sound_files(config: DataConfig) -> None:
    check_dataset(load_dataset(config, supervised_only=False), supervised_only=False)


@pytest.mark.parametrize("name", CASES)
def test_one_clear_line(config: DataConfig, name: str) -> None:
    """By the check before training, and by the survey, which names no other file."""
    file, damage = CASES[name]
    path = Path(str(config.root)) / file
    damage(path)
    dataset = load_dataset(config, supervised_only=False)
    with pytest.raises(UserError) as caught:
        check_dataset(dataset, supervised_only=False)
    found = survey_dataset(dataset, supervised_only=False)
    for line in (str(caught.value), *found.errors):
        if "labelled image is in" in line:  # the first pair stands in both lists
            continue
        assert str(path) in line
        assert "\n" not in line and 20 < len(line) < 300
        assert ("expected" in line and "got" in line) or "found none" in line


def test_on_the_command_line(config: DataConfig, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """All of the corpus's unlabelled images at once: nothing but the lines is printed."""
    for suffix in IMAGES:
        keep(0.5)(tmp_path / f"unlabeled/image.{suffix}")
    options = ["name", "root", "labeled", "unlabeled", "num_classes"]
    data = [option for name in options for option in (f"--data.{name}", str(getattr(config, name)))]
    assert main([*data, "--output", str(tmp_path / "out")]) == 1
    out, err = capfd.readouterr()
    errors = [line for line in out.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(IMAGES) and not err
    assert all(f"unlabeled/image.{suffix}" in "".join(errors) for suffix in IMAGES)
