"""Folders without lists: images and masks that belong together by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskmatch.config import DataConfig
from maskmatch.data import Pair, check_dataset, load_dataset
from maskmatch.data.patterns import Pairing, image_files
from maskmatch.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("images/*", ["a.jpg"]),
        ("images/**/*", ["a.jpg", "x/b.PNG", "x/y/c.webp"]),
        ("images/**/*.{jpg,webp}", ["a.jpg", "x/y/c.webp"]),
        ("images/x/**/*", ["x/b.PNG", "x/y/c.webp"]),
        ("images/?.jpg", ["a.jpg"]),
    ],
)
def test_files_of_a_pattern(tmp_path: Path, pattern: str, names: list[str]) -> None:
    root = touch(tmp_path / "a [set]", *(f"images/{n}" for n in ("a.jpg", "x/b.PNG", "x/y/c.webp", "note.txt", ".h/d")))
    (root / "images/folder.jpg").mkdir()
    assert image_files(root, pattern) == [root / "images" / name for name in names]


@pytest.mark.parametrize(
    ("images", "masks", "image", "mask"),
    [
        ("images/**/*", "masks/**/*", "images/1.jpg", "masks/1.png"),
        ("images/**/*", "masks/**/*", "images/x/y/1.2.jpg", "masks/x/y/1.2.png"),
        ("photos/**/*.jpg", "labels/**/*_mask.png", "photos/x/1.jpg", "labels/x/1_mask.png"),
        ("*/image/*.tif", "*/mask/*.tif", "site/image/1.tif", "site/mask/1.tif"),
        ("*_image.png", "*_mask.png", "1_image.png", "1_mask.png"),
    ],
)
def test_a_mask_is_found_where_the_wildcards_agree(
    tmp_path: Path, images: str, masks: str, image: str, mask: str
) -> None:
    root = touch(tmp_path, image, mask)
    pair = Pair(root / image, root / mask)
    pairing = Pairing(root, images, masks)
    assert pairing.pair(root / image) == pair
    assert pairing.find(f"/{image}") == pair


def test_ids_are_what_the_wildcards_stand_for(tmp_path: Path) -> None:
    root = touch(tmp_path, "images/x/1.jpg", "masks/x/1.png", "images/2.jpg")
    pairing = Pairing(root, "images/**/*", "masks/**/*")
    assert pairing.find("x/1") == Pair(root / "images/x/1.jpg", root / "masks/x/1.png")
    assert pairing.find("2") == Pair(root / "images/2.jpg", None)
    assert pairing.find("3") is None


def test_two_masks_for_one_image_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "masks/1.png", "masks/1.tif")
    with pytest.raises(UserError, match=r"one file for `1` in masks/\*\*/\*, got two: .*1\.png, .*1\.tif"):
        Pairing(root, "images/**/*", "masks/**/*").pair(root / "images/1.jpg")


@pytest.fixture
def nested(tmp_path: Path, save: tuple) -> DataConfig:
    """Five images, three of them with masks, one of those for validation."""
    save_image, save_mask = save
    for name in ("a/1.jpg", "a/2.png", "b/3.webp", "b/c/4.bmp", "val/5.tif"):
        save_image(tmp_path / "images" / name, 20, 30)
        if Path(name).stem in "135":
            save_mask(tmp_path / "masks" / Path(name).with_suffix(".png"), np.arange(600).reshape(20, 30) % 2)
    return DataConfig(name="folder", root=str(tmp_path), val="images/val/*", num_classes=2)


def test_a_folder_without_lists(nested: DataConfig) -> None:
    dataset = load_dataset(nested, supervised_only=False)
    check_dataset(dataset, supervised_only=False)
    parts = {name: [pair.image.name for pair in getattr(dataset, name)] for name in ("labeled", "unlabeled", "val")}
    assert parts == {"labeled": ["1.jpg", "3.webp"], "unlabeled": ["2.png", "4.bmp"], "val": ["5.tif"]}
    assert [pair.mask and pair.mask.name for pair in dataset.labeled] == ["1.png", "3.png"]


def test_a_part_by_its_own_pattern(nested: DataConfig) -> None:
    nested.labeled, nested.unlabeled = "images/a/1*", "images/b/**/*.{webp,bmp}"
    dataset = load_dataset(nested, supervised_only=False)
    assert [pair.image.name for pair in dataset.labeled] == ["1.jpg"]
    assert [pair.image.name for pair in dataset.unlabeled] == ["3.webp", "4.bmp"]
    assert [pair.mask for pair in dataset.unlabeled] == [None, None]
    nested.labeled = "images/a/*"
    with pytest.raises(UserError, match=r"data\.labeled: expected a mask in masks/\*\*/\* .* every image .*2\.png"):
        load_dataset(nested, supervised_only=False)
    nested.labeled = "images/z/*"
    with pytest.raises(UserError, match=r"data\.labeled: expected at least one image, got .*: images/z/\*"):
        load_dataset(nested, supervised_only=False)
