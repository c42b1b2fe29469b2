"""Folders without lists: images and masks that belong together by their names."""

from __future__ import annotations

import fnmatch
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import Pair, check_dataset, load_dataset
from maskmatch.data.decoding.files import IMAGE_SUFFIXES
from maskmatch.data.listing.pairing import Pairing
from maskmatch.data.listing.patterns import Pattern


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
    assert Pattern(root, pattern).files(IMAGE_SUFFIXES) == [root / "images" / name for name in names]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("./images//x/./*", ["x/b.PNG"]),
        ("images/[a-c].*", ["a.jpg"]),
        ("images/[!b]*", ["a.jpg"]),
        ("images/**", ["a.jpg", "x/b.PNG", "x/y/c.webp"]),
        ("images/{x,x/y}/*", ["x/b.PNG", "x/y/c.webp"]),
        ("images/{a.jpg,x/b.PNG}", ["a.jpg", "x/b.PNG"]),
        ("../{a [[]set],other}/images/a.{jpg,jpeg}", ["a.jpg"]),
        ("images/{a}.jpg", []),
        ("images/**/", ["a.jpg", "x/b.PNG", "x/y/c.webp"]),
        ("images/x/*/.", ["x/b.PNG"]),
        ("images/{,x}/*.{jpg,PNG}", ["a.jpg", "x/b.PNG"]),
        ("../a [set]/images/*.jpg", ["a.jpg"]),
    ],
)
def test_the_same_files_are_found_and_recognised(tmp_path: Path, pattern: str, names: list[str]) -> None:
    root = touch(tmp_path / "a [set]", *(f"images/{n}" for n in ("a.jpg", "x/b.PNG", "x/y/c.webp", "note.txt")))
    found = Pattern(root, pattern).files(IMAGE_SUFFIXES)
    assert [path.resolve() for path in found] == [root / "images" / name for name in names]
    photos = [path for path in sorted(root.rglob("*.*")) if path.suffix != ".txt"]
    assert [path for path in photos if Pattern(root, pattern).match(path)] == [root / "images" / name for name in names]


@pytest.mark.parametrize("pattern", ["a[!x]b.png", "a?b.png", "a*b.png", "**b.png", "{a,b}[/]b.png"])
def test_no_wildcard_of_a_name_is_a_slash(tmp_path: Path, pattern: str) -> None:
    assert Pattern(tmp_path, pattern).match(tmp_path / "a/b.png") is None


NAMES = ["a", "b", "ab", "1", "[1]", "{a,b}", "a,b", "é", "stra\udcdfe", "new\nline", "*"]
TREE = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), max_size=8, unique=True)
WORD = st.lists(
    st.sampled_from(["a", "b", "1", "*", "?", "[ab]", "[!a]", "{a,b}", "{,1}", "["]), min_size=1, max_size=3
)
# `*{,1}*` is a wildcard of a name here, as it is written, and not also the `**` that it may be in a shell.
PART = WORD.map("".join).filter(lambda word: word.replace("{,1}", "") != "**") | st.sampled_from(
    ["**", "{a/b,b}", ".", "é", "stra*"]
)


@settings(max_examples=150)
@given(TREE, st.lists(PART, min_size=1, max_size=3).map("/".join), st.sampled_from(["", ".png", ".*", ".{png,jpg}"]))
def test_files_are_those_of_a_plain_definition(tree: list[str], pattern: str, suffix: str) -> None:
    pattern += suffix
    with tempfile.TemporaryDirectory(suffix="[a]{1,2}") as folder:
        root = touch(Path(folder), *(f"{name}.png" for name in tree))
        expected = {name for name in tree if any(belongs(f"{name}.png".split("/"), one) for one in choices(pattern))}
        found = {str(path.relative_to(root))[:-4] for path in Pattern(root, pattern).files(IMAGE_SUFFIXES)}
        assert found == expected, pattern


def choices(pattern: str) -> list[str]:
    """Every text that a pattern's braces make; of these tests, whose braces hold none."""
    brace = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if not brace:
        return [pattern]
    made = [pattern[: brace.start()] + choice + pattern[brace.end() :] for choice in brace[1].split(",")]
    return [text for one in made for text in choices(one)]


def belongs(parts: list[str], pattern: str) -> bool:
    """Whether a path is matched, part by part."""
    wanted = [part for part in pattern.split("/") if part not in ("", ".")]

    def fits(parts: list[str], wanted: list[str]) -> bool:
        if not parts or not wanted:
            return not parts and not wanted
        if wanted[0] == "**":
            return fits(parts[1:], wanted) or fits(parts, wanted[1:]) or len(wanted) == len(parts) == 1
        return fnmatch.fnmatchcase(parts[0], wanted[0]) and fits(parts[1:], wanted[1:])

    return fits(parts, wanted)


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


@pytest.mark.parametrize("root", ["{a,b}", "[0-3] *", "a//b", "./x"])
def test_one_reading_for_every_option(tmp_path: Path, save: tuple, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    """Roots are plain names, and images, masks and lists are found by the same patterns."""
    monkeypatch.chdir(tmp_path)
    for index in range(6):
        save[0](tmp_path / root / f"images/00{index}.png", 8, 8, index)
        save[1](tmp_path / root / f"masks/00{index}.png", np.arange(64).reshape(8, 8) % 2)
    config = DataConfig(name="folder", root=root, num_classes=2, images="images//00[0-5].png")
    config.labeled, config.unlabeled, config.val = "./images/00[0-3].png", "./images/*", "images/{004,005}.png"
    dataset = load_dataset(config, supervised_only=False)
    assert [len(part) for part in (dataset.labeled, dataset.unlabeled, dataset.val)] == [4, 6, 2]
    assert all(pair.mask and pair.mask.name == pair.image.name for pair in (*dataset.labeled, *dataset.val))
    check_dataset(dataset, supervised_only=False)
    for pattern in ("images/*", "./images/*", "images//*", "images/00[0-3].png", "images/{000,001,002,003}.png"):
        found = load_dataset(DataConfig(name="folder", root=root, num_classes=2, images=pattern), **INCOMPLETE)
        assert len(found.labeled) == (6 if pattern.endswith("*") else 4), pattern
        assert all(pair.mask and pair.mask.name == pair.image.name for pair in found.labeled)


def test_a_part_beside_the_images(tmp_path: Path) -> None:
    """What data.images does not match has the mask of the same path, never one that wildcards might stand for."""
    root = touch(tmp_path, *(f"{kind}/{i:03d}.png" for kind in ("images", "masks") for i in range(6)), "more/000.png")
    config = DataConfig(name="folder", root=str(root), num_classes=2, images="images/00[0-3].png", masks="masks/*")
    config.val = "images/{004,005}.png"
    dataset = load_dataset(config, supervised_only=True)
    assert [pair.mask and pair.mask.name for pair in dataset.val] == ["004.png", "005.png"]
    assert len(dataset.labeled) == 4
    config.val = "more/*"
    with pytest.raises(
        UserError, match=r"data\.val: expected a mask in masks/\* .* found none that agrees .*: .*000\.png"
    ):
        load_dataset(config, supervised_only=True)


def test_no_labelled_image_is_left(nested: DataConfig) -> None:
    nested.val = "images/**/*.{jpg,webp,tif}"
    with pytest.raises(
        UserError, match=r"data\.labeled: expected images with masks beside those of data\.val, got none"
    ):
        load_dataset(nested, supervised_only=True)


INCOMPLETE: dict[str, bool] = {"supervised_only": True, "incomplete": True}


def test_a_list_whose_name_is_like_a_pattern(nested: DataConfig) -> None:
    root = Path(str(nested.root))
    (root / "list [1].{a,b}.txt").write_text("images/a/1.jpg\n")
    nested.labeled = "list [1].{a,b}.txt"
    assert [pair.image.name for pair in load_dataset(nested, **INCOMPLETE).labeled] == ["1.jpg"]
