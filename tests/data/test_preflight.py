"""Broken files are found and named before the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_dataset, load_dataset


def check(config: DataConfig, supervised_only: bool = False) -> None:
    check_dataset(load_dataset(config, supervised_only=supervised_only), supervised_only=supervised_only)


def cut(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def save_gray(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def test_sound_data_pass(folder: DataConfig) -> None:
    check(folder)


def test_real_data_pass(camvid: DataConfig) -> None:
    check(camvid)


def test_unusual_but_sound_files_pass(folder: DataConfig) -> None:
    root = Path(str(folder.root))
    with (root / "images/3.jpg").open("ab") as file:
        file.write(b"what some cameras add" * 9)
    with (root / "images/5.jpg").open("ab") as file:
        file.write(b"\0\0\n")
    for index, mode in ((4, "RGBA"), (6, "L"), (8, "P")):
        Image.open(root / f"images/{index}.png").convert(mode).save(root / f"images/{index}.png")
    Image.open(root / "images/7.jpg").convert("CMYK").save(root / "images/7.jpg")
    check(folder)


def overwrite(height: int, width: int, value: int = 0, dtype: type = np.uint8) -> Callable[[Path], None]:
    return lambda path: save_gray(path, np.full((height, width), value, dtype))


def keep(share: float) -> Callable[[Path], None]:
    return lambda path: cut(path, share)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


MISSING = "expected the listed file, found none"
NOT_WHOLE = "expected a whole image"
BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing image": ("images/1.jpg", Path.unlink, MISSING),
    "missing mask": ("masks/1.png", Path.unlink, MISSING),
    "missing unlabelled": ("images/5.jpg", Path.unlink, MISSING),
    "missing validation mask": ("masks/11.png", Path.unlink, MISSING),
    "truncated JPEG": ("images/1.jpg", keep(0.5), NOT_WHOLE),
    "truncated unlabelled JPEG": ("images/5.jpg", keep(0.98), NOT_WHOLE),
    "truncated PNG": ("images/4.png", keep(0.6), NOT_WHOLE),
    "truncated mask": ("masks/2.png", keep(0.6), NOT_WHOLE),
    "cut in the header": ("images/3.jpg", keep(0.02), NOT_WHOLE),
    "empty": ("images/3.jpg", keep(0), NOT_WHOLE),
    "text": ("images/3.jpg", lambda path: path.write_text("404 not found"), NOT_WHOLE),
    "a folder": ("images/3.jpg", become_folder, NOT_WHOLE),
    "16 bits": ("images/4.png", overwrite(52, 62, dtype=np.uint16), "expected 8 bits"),
    "mask in colours": (
        "masks/1.png",
        lambda path: save_gray(path, np.eye(3, dtype=np.uint8)[np.zeros((43, 68), int)]),
        "one 8-bit channel",
    ),
    "mask size": ("masks/1.png", overwrite(68, 43), "expected its image's 68x43, got 43x68"),
    "class": ("masks/1.png", overwrite(43, 68, 4), r"expected a class 0\.\.3 or 255, got 4 \(counted from 1"),
    "validation class": ("masks/10.png", overwrite(70, 50, 254), r"expected a class 0\.\.3 or 255, got 254"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(folder: DataConfig, name: str) -> None:
    file, damage, message = BROKEN[name]
    path = Path(str(folder.root)) / file
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        check(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unlabelled_files_do_not_matter_to_a_supervised_run(folder: DataConfig) -> None:
    (Path(str(folder.root)) / "images/5.jpg").unlink()
    check(folder, supervised_only=True)


def test_test_images_are_checked(folder: DataConfig) -> None:
    path = Path(str(folder.root)) / "images/5.jpg"
    cut(path, 0.5)
    (path.parents[1] / "test.txt").write_text("images/5.jpg masks/5.png\n")
    with pytest.raises(UserError, match=r"images/5\.jpg"):
        check(dataclasses.replace(folder, test="test.txt"), supervised_only=True)


def test_object_masks_of_0_and_255_are_refused(folder: DataConfig) -> None:
    root = Path(str(folder.root))
    for index in range(3):
        mask = np.array(Image.open(root / f"masks/{index}.png"))
        save_gray(root / f"masks/{index}.png", np.where(mask > 1, 255, 0).astype(np.uint8))
    with pytest.raises(UserError, match=r"only 0 and 255 .*: a binary mask\? set data\.mask_values 0,255: .*/0\.png"):
        check(folder)
