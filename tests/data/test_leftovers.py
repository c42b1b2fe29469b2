"""Files that a folder's patterns leave out are counted and named; sound folders are passed over in silence."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import load_dataset
from maskmatch.data.checking.survey import survey_dataset


@pytest.fixture
def plain(tmp_path: Path, save: tuple) -> DataConfig:
    """Three images, two of which have a mask."""
    for index in range(3):
        save[0](tmp_path / f"images/{index}.jpg", 8, 8, index)
    for index in range(2):
        save[1](tmp_path / f"masks/{index}.png", np.arange(64).reshape(8, 8) % 2)
    return DataConfig(name="folder", root=str(tmp_path), num_classes=2)


def notes(config: DataConfig) -> list[str]:
    return list(load_dataset(config, supervised_only=False, incomplete=True).notes)


@pytest.mark.parametrize(("images", "masks"), [("images/**/*", "masks/**/*"), ("images/*.jpg", "masks/*.png")])
def test_a_sound_folder_is_passed_over_in_silence(plain: DataConfig, images: str, masks: str, save: tuple) -> None:
    root = Path(str(plain.root))
    for name in ("notes.txt", "images/Thumbs.db", "images/0.json", "masks/.DS_Store", "images/.gif"):
        (root / name).write_text("{}")
    save[0](root / "contact_sheet.png", 8, 8)
    save[1](root / "masks/.hidden.png", np.zeros((8, 8)))
    plain.images, plain.masks = images, masks
    assert notes(plain) == []
    found = survey_dataset(load_dataset(plain, supervised_only=True, incomplete=True), supervised_only=True)
    assert found.warnings == ["data.val: expected some images, got none"]


def rename(old: str, new: str):
    return lambda root: (root / old).rename(root / new)


def copies(old: str, *new: str):
    return lambda root: [(root / name).write_bytes((root / old).read_bytes()) for name in new]


def labelme(root: Path) -> None:
    (root / "images/2.json").write_text(json.dumps({"version": "5.1", "shapes": [], "imagePath": "2.jpg"}))


ACCENTS = "mu\u0308ll"  # as macOS writes it
LEFT: dict[str, tuple] = {
    "masks without an image": (
        copies("masks/0.png", *(f"masks/{i}.png" for i in range(7, 12))),
        r"5 masks are not used, as no image of images/.*: masks/10\.png, masks/11\.png, masks/7\.png and 2 more",
    ),
    "a mask with the image's suffix in its name": (
        rename("masks/0.png", "masks/0.jpg.png"),
        r"1 mask is not used, as no image .*: masks/0\.jpg\.png",
    ),
    "another name": (
        rename("images/0.jpg", "images/IMG_0.jpg"),
        r"1 mask is not used, as no image .*: masks/0\.png",
    ),
    "case alone": (
        lambda root: [rename("images/0.jpg", "images/IMG_0.jpg")(root), rename("masks/0.png", "masks/img_0.png")(root)],
        r"1 mask is not used, as only the case .*: masks/img_0\.png = images/IMG_0\.jpg",
    ),
    "accents": (
        lambda root: [
            rename("images/0.jpg", f"images/{ACCENTS}.jpg")(root),
            rename("masks/0.png", f"masks/{unicodedata.normalize('NFC', ACCENTS)}.png")(root),
        ],
        r"1 mask is not used, as only .* the writing of accents .*: masks/müll\.png = images/mu\u0308ll\.jpg",
    ),
    "images that are not read": (
        copies("images/2.jpg", "images/3.jfif", "images/4.heic", "images/5.gif"),
        r"3 files are not used, as images/\*\*/\* \(data\.images\) stands for \.bmp, \.jpeg, .*: images/3\.jfif, .*gif",
    ),
    "masks that are not read": (
        rename("masks/1.png", "masks/1.gif"),
        r"1 file is not used, as masks/\*\*/\* \(data\.masks\) stands for .*: masks/1\.gif",
    ),
    "polygons": (labelme, r"polygons in JSON are not read \(.*docs/data\.md.*\): images/2\.json"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_out_is_named(plain: DataConfig, name: str) -> None:
    change, said = LEFT[name]
    change(Path(str(plain.root)))
    found = notes(plain)
    assert len(found) == 1 and re.fullmatch(said, found[0]), found
    dataset = load_dataset(plain, supervised_only=True, incomplete=True)
    assert found[0] in survey_dataset(dataset, supervised_only=True).warnings


@pytest.mark.parametrize("suffix", [".JPEG", ".JPG", ".jpeg", ".jfif"])
def test_other_spellings_of_a_suffix(plain: DataConfig, suffix: str) -> None:
    root = Path(str(plain.root))
    rename("images/2.jpg", f"images/2{suffix}")(root)
    plain.images, plain.masks = "./images/*.jpg", "masks/*.png"
    (found,) = notes(plain)
    assert re.fullmatch(rf"1 file is not used, as \./images/\*\.jpg .* stands for \.jpg here: images/2\{suffix}", found)


def test_a_list_leaves_out_what_it_likes(plain: DataConfig) -> None:
    root = Path(str(plain.root))
    copies("masks/0.png", "masks/7.png", "masks/8.gif")(root)
    (root / "list.txt").write_text("images/0.jpg\n")
    plain.labeled = "list.txt"
    assert notes(plain) == []


def test_what_another_list_has_is_no_leftover(plain: DataConfig) -> None:
    root = Path(str(plain.root))
    (root / "elsewhere").mkdir()
    copies("images/0.jpg", "elsewhere/9.jpg")(root)
    copies("masks/0.png", "masks/9.png")(root)
    (root / "val.txt").write_text("elsewhere/9.jpg masks/9.png\n")
    assert len(notes(plain)) == 1
    plain.val = "val.txt"
    assert notes(plain) == []


COCO = {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("images/0.json", {"version": "5.1", "flags": {}, "shapes": []}),
        ("images/_annotations.coco.json", COCO),
        ("annotations/instances_default.json", COCO),
        ("via_project.json", {"0.jpg": {"filename": "0.jpg", "regions": []}}),
    ],
)
def test_polygons_in_the_place_of_masks(plain: DataConfig, place: str, content: dict) -> None:
    root = Path(str(plain.root))
    for mask in (root / "masks").iterdir():
        mask.unlink()
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=rf"polygons in JSON, such as .*{place} \(.*docs/data\.md, Polygons, has what to"
    ):
        load_dataset(plain, supervised_only=False)
    plain.labeled = place
    with pytest.raises(UserError, match=r"expected a list file, `image mask` on a line, got JSON \(polygons"):
        load_dataset(plain, supervised_only=False)


def test_the_script_of_the_docs_draws_them(plain: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(str(plain.root))
    (root / "images/a").mkdir()
    square = {"label": "leaf", "shape_type": "polygon", "points": [[1, 2], [5, 2], [5, 6], [1, 6]]}
    corner = {"label": "stem", "shape_type": "rectangle", "points": [[4, 4], [7, 7]]}
    drawn = {"shapes": [square, corner], "imageHeight": 8, "imageWidth": 8}
    (root / "images/a/9.json").write_text(json.dumps(drawn))
    text = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    (script,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "shape_type" in code]
    monkeypatch.chdir(root)
    exec(script, {})
    expected = np.zeros((8, 8), np.uint8)
    expected[2:7, 1:6], expected[4:, 4:] = 1, 2
    np.testing.assert_array_equal(np.array(Image.open(root / "masks/a/9.png")), expected)


def test_masks_are_never_images(plain: DataConfig) -> None:
    root = Path(str(plain.root))
    for name in ("0_mask.png", "9_mask.png"):
        (root / "images" / name).write_bytes((root / "masks/0.png").read_bytes())
    plain.images, plain.masks = "**/*", "**/*_mask.png"
    (root / "masks/1.png").rename(root / "masks/1_mask.png")
    dataset = load_dataset(plain, supervised_only=False, incomplete=True)
    assert [pair.image.name for pair in dataset.labeled] == ["0.jpg"]
    assert [pair.image.name for pair in dataset.unlabeled] == ["1.jpg", "2.jpg", "0.png"]
    assert dataset.notes[0].startswith("2 masks are not used")
    plain.labeled, plain.unlabeled = "images/[0].jpg", "{images,masks}/*"
    dataset = load_dataset(plain, supervised_only=False, incomplete=True)
    assert [pair.image.name for pair in dataset.unlabeled] == ["0.jpg", "1.jpg", "2.jpg", "0.png"]


def test_masks_alone(plain: DataConfig) -> None:
    plain.images = plain.masks = "masks/*"
    with pytest.raises(UserError, match=r"got 0 images in masks/\*"):
        load_dataset(plain, supervised_only=False)


def test_gif_masks_alone_are_named(plain: DataConfig) -> None:
    for mask in (Path(str(plain.root)) / "masks").iterdir():
        Image.open(mask).save(mask.with_suffix(".gif"))
        mask.unlink()
    with pytest.raises(UserError, match=r"2 files are not used, as masks/\*\*/\* .*: masks/0\.gif, masks/1\.gif"):
        load_dataset(plain, supervised_only=False)
