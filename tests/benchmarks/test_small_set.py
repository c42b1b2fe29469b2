"""benchmarks/small_set.py: a small set of photographs from a public one."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.small_set import main
from maskmatch.commands.command_line import parse_train
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import Dataset, load_dataset

ROOT = Path(__file__).parents[2]
CAT, DOG, CAR, BORDER = 8, 12, 7, 255  # as VOC stores them


def small_set(*options: object) -> None:
    main([str(option) for option in options])


def save(root: Path, image: str, mask: str, classes: np.ndarray) -> None:
    """A picture whose red is its class, unlike any other's, and its mask."""
    for name in (image, mask):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*classes.shape, 3), 90, np.uint8)
    pixels[..., 0] = classes * 10
    pixels[..., 1] = zlib.crc32(image.encode()) % 256
    Image.fromarray(pixels).save(root / image)
    Image.fromarray(classes.astype(np.uint8)).save(root / mask)


def halves(left: int, right: int, share: float = 0.5) -> np.ndarray:
    classes = np.full((60, 90), right, np.uint8)
    classes[:, : round(90 * share)] = left
    return classes


def draw_voc(root: Path) -> None:
    """Three training images with a cat or a dog, one of background alone, one that a car fills to a third."""
    images = {
        "train_0": halves(0, CAT), "train_1": halves(0, DOG), "train_2": halves(BORDER, CAT),
        "train_3": halves(0, 0), "train_4": halves(CAR, CAT, share=1 / 3),
        "val_0": halves(0, CAT), "val_1": halves(CAR, DOG, share=0.1), "val_2": halves(0, DOG),
    }  # fmt: skip
    for name, classes in images.items():
        save(root, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", classes)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for part in ("train", "val"):
        names = [name for name in images if name.startswith(part)]
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))


def loaded(folder: Path) -> Dataset:
    lists = {part: f"splits/{part}.txt" for part in ("labeled", "unlabeled", "val", "test")}
    return load_dataset(DataConfig(name="folder", root=str(folder), **lists), supervised_only=False)


def stored(mask: Path | None) -> np.ndarray:
    assert mask is not None
    return np.array(Image.open(mask))


def test_voc_becomes_small(tmp_path: Path) -> None:
    draw_voc(tmp_path / "voc")
    small_set(
        *("--data.name", "voc", "--data.root", tmp_path / "voc", "--data.labeled", "ImageSets/Segmentation/train.txt"),
        *("--output", tmp_path / "small", "--short_side", 30, "--classes", "[background,dog,cat]", "--labeled", 2),
    )
    found = loaded(tmp_path / "small")
    names = {part: [image.stem for image, _ in getattr(found, part)] for part in ("labeled", "unlabeled", "val")}
    assert sorted(names["labeled"] + names["unlabeled"]) == ["train_0", "train_1", "train_2"]
    assert "train_1" in names["labeled"], "the only dog"
    assert (names["val"], [image.stem for image, _ in found.test]) == (["val_0", "val_1"], ["val_2"])
    assert found.class_names == ("background", "dog", "cat")
    masks = {image.stem: stored(mask) for image, mask in (*found.labeled, *found.val, *found.truth.items())}
    assert {name: mask.shape for name, mask in masks.items()} == dict.fromkeys(masks, (30, 45))
    ends = {name: (mask[0, 0], mask[0, -1]) for name, mask in masks.items()}
    expected = {"train_0": (0, 2), "train_1": (0, 1), "train_2": (255, 2), "val_0": (0, 2), "val_1": (255, 1)}
    assert ends == expected
    image = np.array(Image.open(found.val[0].image))
    assert image.shape == (30, 45, 3) and abs(int(image[5, -3, 0]) - CAT * 10) < 5
    train = (tmp_path / "small/splits/train.txt").read_text().splitlines()
    assert sorted(line.split()[1] for line in train) == [f"masks/train_{i}.png" for i in range(3)]


@pytest.mark.parametrize("name", ["voc_animals", "cityscapes_small"])
def test_configurations_take_a_small_set(tmp_path: Path, name: str) -> None:
    draw_voc(tmp_path / "voc")
    lists = ("--data.labeled", "ImageSets/Segmentation/train.txt", "--labeled", 2)
    small_set("--data.name", "voc", "--data.root", tmp_path / "voc", *lists, "--output", tmp_path / "small")
    config = parse_train(["--config", f"configs/{name}.yaml", "--data.root", str(tmp_path / "small")])
    found = load_dataset(config.data, supervised_only=False)
    assert all((found.labeled, found.unlabeled, found.val, found.test))


def test_lists_and_pictures_of_a_folder_stay(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        save(tmp_path / "data", f"images/{name}.png", f"masks/{name}.png", halves(0, 1))
    (tmp_path / "data/classes.txt").write_text("road\ncar\n")
    (tmp_path / "data/splits").mkdir()
    options = []
    for part, name in {"labeled": "a", "unlabeled": "b", "val": "c", "test": "d"}.items():
        (tmp_path / f"data/splits/{part}.txt").write_text(f"images/{name}.png masks/{name}.png\n")
        options += [f"--data.{part}", f"splits/{part}.txt"]
    folder = ("--data.name", "folder", "--data.root", tmp_path / "data", *options)
    small_set(*folder, "--output", tmp_path / "small", "--short_side", 100)
    found = loaded(tmp_path / "small")
    parts = [found.labeled, found.unlabeled, found.val, found.test]
    assert [[image.stem for image, _ in part] for part in parts] == [["a"], ["b"], ["c"], ["d"]]
    assert stored(found.labeled[0].mask).shape == (60, 90), "nothing is enlarged"

    with pytest.raises(UserError, match="nothing is overwritten"):
        small_set(*folder, "--output", tmp_path / "small")
    with pytest.raises(UserError, match="classes: expected some of road, car, got boat"):
        small_set(*folder, "--output", tmp_path / "other", "--classes", "[road,boat]")


def test_cityscapes_keeps_its_classes(tmp_path: Path) -> None:
    for part, city in (("train", "ulm"), ("train", "bonn"), ("val", "bern"), ("val", "zug")):
        frame = f"{city}_000000_000019"
        road_and_car = halves(7, 26)  # label ids
        image = f"leftImg8bit/{part}/{city}/{frame}_leftImg8bit.png"
        save(tmp_path / "cities", image, f"gtFine/{part}/{city}/{frame}_gtFine_labelIds.png", road_and_car)
    (tmp_path / "cities/train.txt").write_text("bonn_000000_000019\nulm_000000_000019\n")
    small_set(
        *("--data.name", "cityscapes", "--data.root", tmp_path / "cities", "--data.labeled", "train.txt"),
        *("--output", tmp_path / "small", "--short_side", 20, "--labeled", 1),
    )
    found = loaded(tmp_path / "small")
    assert [len(part) for part in (found.labeled, found.unlabeled, found.val, found.test)] == [1, 1, 1, 1]
    assert found.num_classes == 19
    assert set(np.unique(stored(found.labeled[0].mask))) == {0, 13}


def test_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/small_set.py", "--data.name", "folder", "--data.root", str(tmp_path)]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
