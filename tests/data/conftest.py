"""Small data sets on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.config import DataConfig
from maskmatch.data.listing import builtin

CLASSES = 4


def save_image(path: Path, height: int, width: int, seed: int = 0, mode: str = "RGB") -> None:
    """A smooth random picture, as photographs are; JPEG or PNG by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.convert(mode).save(path)


def save_mask(path: Path, values: np.ndarray, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)


@pytest.fixture
def save() -> tuple[Callable[..., None], Callable[..., None]]:
    return save_image, save_mask


@pytest.fixture
def folder(tmp_path: Path) -> DataConfig:
    """A folder of 3 labelled, 7 unlabelled and 2 validation images of different sizes and formats."""
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    lines = []
    for index in range(12):
        height, width = 40 + 3 * index, 70 - 2 * index
        image = f"images/{index}.{'jpg' if index % 2 else 'png'}"
        save_image(root / image, height, width, index)
        values = rng.integers(0, CLASSES, (height, width))
        values[:3] = 255
        save_mask(root / f"masks/{index}.png", values, palette=index % 3 > 0)
        lines.append(f"{image} masks/{index}.png\n")
    for part, chosen in {"labeled": lines[:3], "unlabeled": lines[3:10], "val": lines[10:]}.items():
        (root / f"{part}.txt").write_text("".join(chosen))
    return DataConfig(
        name="folder",
        root=str(root),
        labeled="labeled.txt",
        unlabeled="unlabeled.txt",
        val="val.txt",
        num_classes=CLASSES,
        crop_size=(48, 40),
        scale_range=(0.5, 2.0),
        grayscale=0.2,
        cache="none",
    )


@pytest.fixture
def small_builtin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in data set with fewer images."""
    monkeypatch.setattr(builtin, "PARTS", {"labeled": 4, "unlabeled": 6, "val": 3, "test": 2})


@pytest.fixture
def camvid() -> DataConfig:
    """Real photographs, where they are at hand."""
    place = os.environ.get("MASKMATCH_TEST_DATA")
    root = Path(place or "") / "data/camvid"
    if not place or not root.is_dir():
        pytest.skip("MASKMATCH_TEST_DATA names no folder with data/camvid")
    return DataConfig(
        name="folder",
        root=str(root),
        labeled="splits/1_16/labeled.txt",
        unlabeled="splits/1_16/unlabeled.txt",
        val="splits/val.txt",
        crop_size=(96, 128),
        scale_range=(0.5, 2.0),
    )
