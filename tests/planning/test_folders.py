"""Folders as strangers have them: each gives a plan that train's own reader takes, or one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from maskmatch.commands.plan import main
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_dataset, load_dataset
from maskmatch.data.listing.lists import format_list
from maskmatch.planning import Plan, make_plan

BINARY = (0, 255)


def write(file: Path, pixels: np.ndarray) -> None:
    """RGB or gray."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(file.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tofile(file)


def image(name: str) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).integers(0, 256, (48, 64, 3), np.uint8)


def target(i: int, values: tuple[object, ...]) -> np.ndarray:
    """Stripes of the values, of different heights in each image."""
    rows = (np.arange(48) + i) * len(values) // 48 % len(values)
    return np.array(values, np.uint8)[rows[:, None].repeat(64, 1)]


def draw(
    root: Path, images: str = "images/{}.jpg", masks: str = "masks/{}.png", *, values: tuple[object, ...] = (0, 1, 2),
    names: tuple[str, ...] = tuple(f"{i:03d}" for i in range(12)), masked: int = 10,
) -> Path:  # fmt: skip
    for i, name in enumerate(names):
        write(root / images.format(name), image(name))
        if i < masked:
            write(root / masks.format(name), target(i, values))
    return root


def planned(root: Path, **yours: object) -> tuple[Plan, dict[str, object]]:
    plan = make_plan(root, root.parent / "lists", {f"data.{name}": value for name, value in yours.items()})
    return plan, {one.option: one.value for one in plan.choices}


def trained_on(plan: Plan, root: Path) -> dict[str, int]:
    """Images of each part as train reads and checks them."""
    lists = root.parent / "lists"
    lists.mkdir(exist_ok=True)
    for part, pairs in plan.lists.items():
        text = format_list(pairs, root)
        (lists / f"{part}.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    options = yaml.safe_load(plan.to_yaml())
    supervised = options["method"].get("supervised_only", False)
    dataset = load_dataset(DataConfig(**options["data"]), supervised_only=supervised, incomplete=True)
    check_dataset(dataset, supervised_only=supervised)
    parts = {part: len(getattr(dataset, part)) for part in ("labeled", "unlabeled", "val", "test")}
    return {part: count for part, count in parts.items() if count}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("Images/{}.jpg", "Labels/{}.png"),
        ("imgs/{}.tif", "masks/{}_mask.png"),
        ("image/a/{}.webp", "label/a/{}.bmp"),
        ("data/images/{}.jpg", "data/annotations/{}.png"),
        ("site 1/images/{}.jpg", "site 1/masks/{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("img_dir/{}.jpg", "ann_dir/{}.png"),
        ("{}.jpg", "{}_mask.png"),
        ("all/{}.jpg", "all/{}-seg.png"),
        ("{}_sat.jpg", "{}_mask.png"),
        ("photos/{}_image.png", "masks/{}_label.png"),
        ("{}.png", "masks/{}.png"),
        ("street [2024]/{}.jpg", "street [2024]/masks/{}.png"),
        ("set/{}.jpg", "set_masks/{}.png"),
        ("img/image{}.jpg", "gt/mask_{}.png"),
        ("frame-{}.jpg", "label-{}.png"),
        ("{}.jpg", "{}.png"),
        ("pictures/été #1: ‘é’/{}.jpg", "masks/été #1: ‘é’/{}.png"),
    ],
)
def test_layouts(tmp_path: Path, images: str, masks: str) -> None:
    root = draw(tmp_path / "set", images, masks)
    plan, _ = planned(root)
    assert trained_on(plan, root) == {"labeled": 8, "unlabeled": 2, "val": 2}


def test_folders_called_train_val_and_test(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for part, masked in (("train", 6), ("valid", 3), ("test", 3)):
        names = tuple(f"{part}{i}" for i in range(8 if part == "train" else 3))
        draw(root, f"img_dir/{part}/{{}}.jpg", f"ann_dir/{part}/{{}}.png", names=names, masked=masked)
    plan, _ = planned(root)
    assert trained_on(plan, root) == {"labeled": 6, "unlabeled": 2, "val": 3, "test": 3}
    assert {pair.image.parent.name for pair in plan.lists["val"]} == {"valid"}


@pytest.mark.parametrize("folder", ["", "splits", "ImageSets/Segmentation"])
def test_lists_of_the_folder_are_taken(tmp_path: Path, folder: str) -> None:
    root = draw(tmp_path / "set")
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "val.txt").write_text("000\n001\n002\n")
    (root / folder / "test.txt").write_text("images/003.jpg masks/003.png\nimages/011.jpg\n")
    plan, _ = planned(root)
    assert {part: sorted(pair.image.stem for pair in pairs) for part, pairs in plan.lists.items()} == {
        "labeled": [f"{i:03d}" for i in range(4, 10)],
        "unlabeled": ["010"],
        "val": ["000", "001", "002"],
        "test": ["003", "011"],
    }


def test_a_list_called_train_says_what_to_learn_from(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    (root / "train.txt").write_text("".join(f"{i:03d}\n" for i in (0, 1, 2, 3, 4, 10)))
    plan, _ = planned(root)
    assert {part: len(pairs) for part, pairs in plan.lists.items()} == {"labeled": 4, "unlabeled": 2, "val": 1}
    assert any("5 masks not used" in note for note in plan.notes)


def test_a_list_that_is_none_is_said(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    (root / "val.txt").write_text("/content/elsewhere/1.jpg\n")
    plan, _ = planned(root)
    assert len(plan.lists["val"]) == 2 and any("list not used" in note for note in plan.notes)


def test_your_lists_are_kept(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    (root / "mine.txt").write_text("005\n006\n")
    plan, found = planned(root, val="mine.txt")
    assert found["data.val"] == "mine.txt" and "val" not in plan.lists
    assert {pair.image.stem for pair in plan.lists["labeled"]}.isdisjoint({"005", "006"})
    assert trained_on(plan, root) == {"labeled": 8, "unlabeled": 2, "val": 2}


def test_twelve_images_with_four_masks(tmp_path: Path) -> None:
    root = draw(tmp_path / "set", values=BINARY, masked=4)
    plan, found = planned(root)
    assert found["data.mask_values"] == [0, 255] and found["data.num_classes"] == 2
    assert trained_on(plan, root) == {"labeled": 4, "unlabeled": 8, "val": 4}  # none can be spared
    assert any("no mask is held out" in note for note in plan.notes)


def jpeg_masks(root: Path) -> None:
    for file in (root / "masks").iterdir():
        pixels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        file.unlink()
        cv2.circle(pixels, (30, 20), 9, 255, -1)
        cv2.imwrite(str(file.with_suffix(".jpg")), pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])


def smooth_masks(root: Path) -> None:
    for file in (root / "masks").iterdir():
        pixels = np.full((48, 64, 3), (9, 99, 200), np.uint8)
        cv2.circle(pixels, (30, 20), 13, (200, 50, 9), -1, cv2.LINE_AA)
        cv2.imwrite(str(file), cv2.GaussianBlur(pixels, (3, 3), 1))


def yolo(root: Path) -> None:
    shutil.rmtree(root / "masks")
    (root / "labels").mkdir()
    (root / "labels/000.txt").write_text("0 0.5 0.5 0.1 0.1\n")


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (lambda root: [shutil.rmtree(root / name) for name in ("images", "masks")], "found none"),
    "no masks": (lambda root: shutil.rmtree(root / "masks"), "found no mask of an image"),
    "boxes": (yolo, "texts such as 000.txt (YOLO's boxes or polygons) are no masks"),
    "other names": (lambda root: (root / "masks").rename(root / "mine"), "found no mask of an image"),
    "two masks": (lambda root: shutil.copy(root / "masks/000.png", root / "masks/000.bmp"), "got two"),
    "smeared": (jpeg_masks, "JPEG changes values"),
    "smooth": (smooth_masks, "blended edges"),
    "one class": (lambda root: [write(root / f"masks/{i:03d}.png", target(i, (1,))) for i in range(10)], "got 1 in"),
    "broken masks": (lambda root: [file.write_bytes(b"no") for file in (root / "masks").iterdir()], "none can"),
    "one name": (lambda root: (root / "classes.txt").write_text("crack\n"), "the background too"),
    "too few names": (lambda root: (root / "classes.txt").write_text("a\nb\n"), "has names, 2, got 3"),
    "bad labelmap": (lambda root: (root / "labelmap.txt").write_text("a:0,0:\n"), "line 1"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_folders_give_one_line(tmp_path: Path, name: str) -> None:
    root = draw(tmp_path / "set")
    spoil, line = ODD[name]
    spoil(root)
    with pytest.raises(UserError) as caught:
        planned(root)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_links_that_return_are_not_followed(tmp_path: Path) -> None:
    """Three of them, which would be walked in all orders, each up to 40 times."""
    root = draw(tmp_path / "set")
    (tmp_path / "link").symlink_to(root)
    for name in ("a", "b", "c"):
        (root / "images" / name).symlink_to(root)
    for place in (root, tmp_path / "link"):
        plan, _ = planned(place)
        assert {part: len(pairs) for part, pairs in plan.lists.items()} == {"labeled": 8, "unlabeled": 2, "val": 2}


def test_names_that_no_list_can_hold_are_left_out(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    for name in ("line\nend.jpg", "tab\t.jpg"):
        write(root / "images/x.jpg", image(name))
        (root / "images/x.jpg").rename(root / "images" / name)
    plan, _ = planned(root)
    assert trained_on(plan, root) == {"labeled": 8, "unlabeled": 2, "val": 2}
    assert sum("no list can hold its name" in note for note in plan.notes) == 2


def test_copies_of_held_out_images_are_not_learned_from(tmp_path: Path) -> None:
    root = draw(tmp_path / "set", names=tuple(f"{i:03d}" for i in range(10)))
    for i in range(4):
        for folder, suffix in (("images", "jpg"), ("masks", "png")):
            shutil.copy(root / f"{folder}/{i:03d}.{suffix}", root / f"{folder}/copy{i:03d}.{suffix}")
    plan, _ = planned(root)
    val, labeled = ({pair.image.stem[-3:] for pair in plan.lists[part]} for part in ("val", "labeled"))
    assert val and val.isdisjoint(labeled) and any("as val or test has them too" in note for note in plan.notes)


def test_a_list_of_file_names(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    (root / "val.txt").write_text("000.jpg\n003.jpg\n")
    plan, _ = planned(root)
    assert sorted(pair.image.stem for pair in plan.lists["val"]) == ["000", "003"]


def test_what_cannot_be_used_is_left_out_and_said(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    write(root / "masks/000.png", target(0, (0, 1, 2))[:20])
    (root / "images/001.jpg").write_bytes((root / "images/001.jpg").read_bytes()[:300])
    (root / "images/011.jpg").write_bytes(b"")
    plan, _ = planned(root)
    assert trained_on(plan, root) == {"labeled": 7, "unlabeled": 1, "val": 1}
    said = [note for note in plan.notes if note.startswith("left out")]
    assert len(said) == 3 and any("expected its image's 64x48, got 64x20" in note for note in said)


def test_the_command_says_it_and_writes_the_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = draw(tmp_path / "\x1b[31mset: #1 'é'", values=BINARY)
    assert main(["--data.root", str(root), "--output", str(tmp_path / "plan.yaml")]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "data.mask_values [0, 255]: masks store 0, 255" in said
    assert yaml.safe_load((tmp_path / "plan.yaml").read_text(encoding="utf-8"))["data"]["root"] == str(root)
