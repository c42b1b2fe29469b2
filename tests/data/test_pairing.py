"""Which mask is whose: never another image's, whatever the patterns."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import load_dataset
from maskmatch.data.listing.pairing import Pairing


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(root: Path, images: str, masks: str) -> dict[str, str | None]:
    """Image -> mask, by their paths under the root."""
    pairing = Pairing(root, images, masks)
    found = [pairing.pair(image) for image in pairing.image_files]
    return {str(image.relative_to(root)): mask and str(mask.relative_to(root)) for image, mask in found}


LAYOUTS: dict[str, tuple[str, str, dict[str, str | None], list[str]]] = {
    "wildcards are not run together": (
        "site_*/images/*.png",
        "site_*/masks/*.png",
        {"site_1/images/23.png": "site_1/masks/23.png", "site_12/images/3.png": None},
        [],
    ),
    "nor are folders and names": (
        "*/**/*.jpg",
        "*/**/*.png",
        {"a/b/1.jpg": "a/b/1.png", "ab/1.jpg": None},
        [],
    ),
    "a brace in both patterns": (
        "{labeled,unlabeled}/images/*.png",
        "{labeled,unlabeled}/masks/*.png",
        {"labeled/images/1.png": "labeled/masks/1.png", "unlabeled/images/1.png": None},
        [],
    ),
    "a brace in both, somewhere else and with other choices": (
        "images/{a,b}/*.png",
        "{b,c}_masks/*.png",
        {"images/a/1.png": None, "images/b/1.png": "b_masks/1.png"},
        [],
    ),
    "below a free brace a part of a name stands for no mask": (
        "{labeled,extra}/1?.jpg",
        "masks/*.png",
        {"labeled/13.jpg": None, "extra/12.jpg": None},
        ["masks/3.png", "masks/2.png"],
    ),
    "two braces": (
        "{x,y}_{1,2}/*.jpg",
        "{x,y}_{1,2}/*.png",
        {"x_1/a.jpg": "x_1/a.png", "x_2/a.jpg": None, "y_1/a.jpg": None, "y_2/a.jpg": "y_2/a.png"},
        [],
    ),
    "a brace in another": (
        "{a,b{c,d}}/*.jpg",
        "{a,bc,bd}/*.png",
        {"a/1.jpg": None, "bc/1.jpg": "bc/1.png", "bd/1.jpg": None},
        [],
    ),
    "a brace of names with their suffix": (
        "*{_left.jpg,_right.png}",
        "masks/*{_left,_right}.png",
        {"1_left.jpg": "masks/1_left.png", "1_right.png": None},
        [],
    ),
    "braces of suffixes are free": (
        "images/*.{jpg,png}",
        "masks/*.{png,tif}",
        {"images/1.jpg": "masks/1.tif", "images/2.png": "masks/2.png"},
        [],
    ),
    "a brace of one pattern is free": (
        "{labeled,extra}/*.jpg",
        "masks/*.png",
        {"labeled/1.jpg": "masks/1.png", "extra/2.jpg": "masks/2.png", "extra/3.jpg": None},
        [],
    ),
    "a suffix more": (
        "photos/**/*.{jpg,png}",
        "labels/**/*_mask.png",
        {"photos/x/1.jpg": "labels/x/1_mask.png", "photos/2.png": "labels/2_mask.png", "photos/y/1.jpg": None},
        [],
    ),
    "no folder for `**/`": (
        "images/**/*.jpg",
        "masks/*.png",
        {"images/1.jpg": "masks/1.png", "images/x/1.jpg": None},
        [],
    ),
    "a folder for `**/` and for `*/`": (
        "images/**/*.jpg",
        "masks/*/*.png",
        {"images/x/1.jpg": "masks/x/1.png", "images/1.jpg": None, "images/x/y/1.jpg": None},
        [],
    ),
    "more wildcards in the images' names": (
        "images/??.jpg",
        "masks/*_mask.png",
        {"images/12.jpg": "masks/12_mask.png", "images/13.jpg": None},
        ["masks/1_mask.png"],
    ),
    "some characters": (
        "images/00[0-3].png",
        "masks/*.png",
        {"images/002.png": "masks/002.png", "images/003.png": None},
        ["images/004.png", "masks/004.png"],
    ),
    "some of the images": (
        "images/1[0-3].png",
        "masks/*.png",
        {"images/12.png": "masks/12.png", "images/13.png": None},
        ["images/3.png", "masks/2.png", "masks/3.png"],
    ),
    "some of the images, in any folder": (
        "images/**/1?.png",
        "masks/**/*.png",
        {"images/a/12.png": "masks/a/12.png", "images/a/13.png": None, "images/10.png": None},
        ["masks/a/2.png", "masks/a/3.png", "masks/0.png"],
    ),
    "some of the masks": (
        "images/*.png",
        "masks/1?.*",
        {"images/3.png": None, "images/12.png": "masks/12.png", "images/2.png": None},
        ["masks/13.png", "masks/2.png"],
    ),
    "some characters, and names that differ": (
        "images/img_[0-9].png",
        "masks/mask_*.png",
        {"images/img_1.png": "masks/mask_1.png", "images/img_2.png": None},
        ["masks/mask_02.png"],
    ),
    "some characters in both": (
        "./images//00[0-3].png",
        "masks/00[0-3]_m.png",
        {"images/002.png": "masks/002_m.png", "images/003.png": None},
        [],
    ),
    "a single image": ("photo.jpg", "mask.png", {"photo.jpg": "mask.png"}, []),
    "everything below": ("images/**", "masks/**", {"images/x/1.jpg": "masks/x/1.png", "images/1.jpg": None}, []),
    "dots in names": (
        "*.rf.*.jpg",
        "*.rf.*_mask.png",
        {"a_jpg.rf.0f.jpg": "a_jpg.rf.0f_mask.png", "a_jpg.rf.1.jpg": None},
        [],
    ),
    "masks among the images": (
        "**/*",
        "**/*_mask.png",
        {"a/1.jpg": "a/1_mask.png", "2.png": None},
        ["3_mask.png", "a/4_mask.png"],
    ),
    "images that masks would match too": (
        "*_image.png",
        "*.png",
        {"1_image.png": "1.png", "2_image.png": None},
        ["3.png"],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_pairs_of_a_layout(tmp_path: Path, name: str) -> None:
    images, masks, expected, others = LAYOUTS[name]
    root = touch(tmp_path / "{a,b} [0-9]*", *expected, *filter(None, expected.values()), *others)
    assert pairs(root, images, masks) == expected


DIGITS = st.text("12", min_size=1, max_size=3)
PLACES = st.lists(st.tuples(DIGITS, st.sampled_from(["", "1/", "2/1/", "12/"]), DIGITS), max_size=8, unique=True)
FORMS = [  # {0} and {2} stand for `*`, {1} for `**/`, {3} for a brace
    ("s{0}/{3}images/{1}x{2}.png", "t{0}/{3}masks/{1}{2}_m.png"),
    ("s{0}_{3}i/{1}{2}.png", "{3}m_{0}/{1}{2}.png"),
    ("{3}s{0}/{1}{2}_i.png", "{3}s{0}/{1}{2}_m.png"),
]


@settings(max_examples=40)
@given(st.sampled_from(FORMS), st.sampled_from(["", "ab/", "ab_"]), PLACES, PLACES)
@example(FORMS[0], "", [("1", "", "23"), ("12", "", "3")], [("1", "", "23")])
def test_a_mask_is_that_of_the_same_wildcards(
    forms: tuple[str, str], brace: str, imaged: list[tuple], masked: list[tuple]
) -> None:
    """The files are made from what the wildcards shall stand for, so that it is known without reading a pattern."""
    choices = [f"{letter}{brace[2:]}" for letter in brace[:2]]
    images, masks = (
        {(*place, choice): form.format(*place, choice) for place in some for choice in choices or [""]}
        for form, some in zip(forms, (imaged, masked), strict=True)
    )
    patterns = [form.format("*", "**/", "*", f"{{a,b}}{brace[2:]}" if brace else "") for form in forms]
    with tempfile.TemporaryDirectory() as folder:
        root = touch(Path(folder), *images.values(), *masks.values())
        assert pairs(root, *patterns) == {image: masks.get(place) for place, image in images.items()}


STEMS = st.sampled_from(["a", "A", "a b", "a.b", "é", "e\u0301", "x/a", "X/a", "stra\udcdfe", "a_mask"])
FILES = st.sets(st.tuples(STEMS, st.sampled_from([".png", ".jpg", ".JPEG", ".gif", ".txt"])), max_size=7)
READ = (".png", ".jpg", ".JPEG")


@settings(max_examples=60)
@given(FILES, FILES)
def test_a_folder_without_lists_by_its_names(images: set[tuple[str, str]], masks: set[tuple[str, str]]) -> None:
    """Labelled, unlabelled and left out by plain sets of names."""
    imaged = [stem for stem, suffix in images if suffix in READ]
    masked = [stem for stem, suffix in masks if suffix in READ]
    both = {*imaged} & {*masked}
    twice = any(imaged.count(stem) > 1 or masked.count(stem) > 1 for stem in both)
    with tempfile.TemporaryDirectory() as folder:
        files = [f"images/{stem}{suffix}" for stem, suffix in images]
        root = touch(Path(folder), *files, *(f"masks/{stem}{suffix}" for stem, suffix in masks))
        config = DataConfig(name="folder", root=folder, num_classes=2)
        if twice or not both:
            with pytest.raises(UserError, match="got two: " if twice else "and none with a mask"):
                load_dataset(config, supervised_only=False, incomplete=True)
            return
        dataset = load_dataset(config, supervised_only=False, incomplete=True)
        found = [sorted(key(root, path) for path, _ in part) for part in (dataset.labeled, dataset.unlabeled)]
        assert found == [sorted(both), sorted(stem for stem in imaged if stem not in both)]
        assert all(pair.mask and key(root, pair.mask) == key(root, pair.image) for pair in dataset.labeled)
        said = [int(note.split()[0]) for note in dataset.notes if "mask" in note.split()[1]]
        assert sum(said) == len([stem for stem in masked if stem not in both])
        gifs = [int(note.split()[0]) for note in dataset.notes if "file" in note.split()[1]]
        assert sum(gifs) == len([suffix for _, suffix in (*images, *masks) if suffix == ".gif"])


def key(root: Path, path: Path) -> str:
    return str(path.relative_to(root).with_suffix("")).partition("/")[2]


def test_one_mask_for_two_images(tmp_path: Path, save: tuple) -> None:
    for name in ("images/i.jpg", "images/i.png", "images/j.jpg"):
        save[0](tmp_path / name, 8, 8)
    save[1](tmp_path / "masks/i.png", np.zeros((8, 8)))
    config = DataConfig(name="folder", root=str(tmp_path), num_classes=2)
    said = r"expected one image for each mask .*got two: .*images/i\.jpg, .*images/i\.png: .*masks/i\.png \(a list file"
    for labeled in (None, "images/*"):
        config.labeled = labeled
        config.images = "images/i.*" if labeled else "images/**/*"
        config.labeled = "images/i.*" if labeled else None
        with pytest.raises(UserError, match=said):
            load_dataset(config, supervised_only=True, incomplete=True)
    config.labeled, config.val = "images/i.jpg*", "images/i.p*"
    with pytest.raises(UserError, match=said):
        load_dataset(config, supervised_only=True)
    (tmp_path / "list.txt").write_text("images/i.jpg masks/i.png\nimages/j.jpg masks/i.png\n")  # a fixed camera
    config.labeled, config.val = "list.txt", None
    assert len(load_dataset(config, supervised_only=True, incomplete=True).labeled) == 2


@pytest.mark.parametrize("masks", ["*.png", "**/*"])
def test_masks_that_leave_no_image(tmp_path: Path, masks: str) -> None:
    touch(tmp_path, "1.png", "2.png")
    config = DataConfig(name="folder", root=str(tmp_path), num_classes=2, images="*.png", masks=masks)
    with pytest.raises(UserError, match=r"got 0 images .*data\.masks matches all of data\.images too"):
        load_dataset(config, supervised_only=True)


@pytest.mark.parametrize("identifier", ["1/23", "site_1/images/23", "site_1/images/23.png"])
def test_ids_of_several_wildcards(tmp_path: Path, identifier: str) -> None:
    root = touch(tmp_path, "site_1/images/23.png", "site_1/masks/23.png", "site_12/images/3.png")
    found = Pairing(root, "site_*/images/*.png", "site_*/masks/*.png").find(identifier)
    assert found == (root / "site_1/images/23.png", root / "site_1/masks/23.png")
