"""Labelled images that are measured on are named, whatever they are called; others are passed over in silence."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maskmatch.config import DataConfig
from maskmatch.data import load_dataset, overlaps
from maskmatch.data.checking.survey import survey_dataset


def listed(root: Path, name: str, mask: str = "masks/1.png") -> None:
    (root / "val.txt").write_text(f"images/10.png masks/10.png\n{name} {mask}\n")


def same_path(root: Path) -> str:
    listed(root, "images/1.jpg")
    return "images/1.jpg"


def roundabout(root: Path) -> str:
    listed(root, "masks/../images/1.jpg")
    return "images/1.jpg = masks/../images/1.jpg"


def absolute(root: Path) -> str:
    listed(root, str(root / "images/1.jpg"))
    return "images/1.jpg"


def linked(link: Callable[[Path, Path], object], name: str) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        link(root / "images/1.jpg", root / f"images/{name}")
        shutil.copy(root / "masks/1.png", root / "masks/x.png")
        listed(root, f"images/{name}", "masks/x.png")
        return f"images/1.jpg = images/{name}"

    return make


def linked_folder(root: Path) -> str:
    (root / "val").symlink_to(root / "images")
    listed(root, "val/1.jpg")
    return "images/1.jpg = val/1.jpg"


def other_format(root: Path) -> str:
    Image.open(root / "images/1.jpg").save(root / "images/1.webp")  # with loss
    listed(root, "images/1.webp")
    return "images/1.jpg = images/1.webp"


WAYS = {
    "path": same_path,
    "way round": roundabout,
    "absolute path": absolute,
    "link": linked(lambda old, new: new.symlink_to(old), "x.jpg"),
    "hard link": linked(lambda old, new: os.link(old, new), "x.jpg"),
    "copy": linked(shutil.copy, "x.jpeg"),
    "linked folder": linked_folder,
    "other format": other_format,
}


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("way", WAYS)
def test_a_labelled_image_that_is_measured_on(folder: DataConfig, way: str, part: str) -> None:
    name = WAYS[way](Path(str(folder.root)))
    config = dataclasses.replace(folder, **{"val": None, part: "val.txt"})
    dataset = load_dataset(config, supervised_only=False, incomplete=True)
    said = f"1 of 2 images of data.{part} are labelled too, which measures what was learned by heart: {name}"
    assert overlaps(dataset) == [said]
    (error,) = survey_dataset(dataset, supervised_only=False).errors
    assert re.match(rf"labelled image is in the {part} list.*: .*images/1\.jpg", error)


def test_a_whole_list(folder: DataConfig) -> None:
    folder.val = "labeled.txt"
    (said,) = overlaps(load_dataset(folder, supervised_only=False))
    assert said.startswith("3 of 3 images of data.val are labelled too") and said.endswith(
        "0.png, images/1.jpg, images/2.png"
    )


def test_other_images_are_passed_over_in_silence(folder: DataConfig) -> None:
    """Also those of a fixed camera, which share a mask, and those that are unlabelled and in val."""
    root = Path(str(folder.root))
    shutil.copy(root / "images/3.jpg", root / "images/1b.jpg")
    Image.new("RGB", Image.open(root / "images/1.jpg").size).save(root / "images/1b.jpg")
    listed(root, "images/1b.jpg")
    (root / "unlabeled.txt").write_text("images/1b.jpg\nimages/10.png\n")
    dataset = load_dataset(folder, supervised_only=False)
    assert overlaps(dataset) == [] and survey_dataset(dataset, supervised_only=False).errors == []


def test_files_that_are_not_there_are_for_the_check(folder: DataConfig) -> None:
    listed(Path(str(folder.root)), "images/99.jpg")
    assert overlaps(load_dataset(folder, supervised_only=False)) == []
