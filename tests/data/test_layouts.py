"""Finding lists and classes: folder, VOC and Cityscapes trees, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import Pair, check_dataset, load_dataset, read_mask
from maskmatch.data.decoding.classes import format_palette, parse_palette, voc_palette


def change(config: DataConfig, **values: object) -> DataConfig:
    return dataclasses.replace(config, **values)  # type: ignore[arg-type]


def test_folder(folder: DataConfig) -> None:
    dataset = load_dataset(folder, supervised_only=False)
    root = Path(str(folder.root))
    assert (len(dataset.labeled), len(dataset.unlabeled), len(dataset.val), len(dataset.test)) == (3, 7, 2, 0)
    assert dataset.labeled[1] == Pair(root / "images/1.jpg", root / "masks/1.png")
    assert all(pair.mask is None for pair in dataset.unlabeled)
    assert dataset.class_names == ("0", "1", "2", "3")
    assert dataset.num_classes == 4
    assert dataset.palette.shape == (4, 3)
    assert load_dataset(change(folder, unlabeled="missing.txt"), supervised_only=True).unlabeled == ()


def test_class_names_from_file_or_options(folder: DataConfig) -> None:
    (Path(str(folder.root)) / "classes.txt").write_text("sky\nold wall\n\ncar\ntree\n")
    names = ("sky", "old wall", "car", "tree")
    assert load_dataset(change(folder, num_classes=None), supervised_only=False).class_names == names
    renamed = load_dataset(change(folder, class_names=list("abcd")), supervised_only=False)
    assert renamed.class_names == tuple("abcd")
    with pytest.raises(UserError, match=r"data\.num_classes: expected 4 .*got 5"):
        load_dataset(change(folder, num_classes=5), supervised_only=False)
    with pytest.raises(UserError, match=r"data\.class_names: expected 4 names, got 2"):
        load_dataset(change(folder, class_names=["a", "b"]), supervised_only=False)


def test_colours_of_a_folder_are_those_of_its_masks(folder: DataConfig) -> None:
    (Path(str(folder.root)) / "labeled.txt").write_text("images/1.jpg masks/1.png\n")  # has a palette
    with Image.open(Path(str(folder.root)) / "masks/1.png") as mask:
        stored = mask.getpalette()
    assert load_dataset(folder, supervised_only=False).palette.ravel().tolist() == stored[:12]  # type: ignore[index]
    (Path(str(folder.root)) / "labeled.txt").write_text("images/0.png masks/0.png\n")  # has none
    np.testing.assert_array_equal(load_dataset(folder, supervised_only=False).palette, voc_palette(4))


def test_list_is_sought_in_the_current_folder_first(
    folder: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labeled.txt").write_text("images/5.jpg masks/5.png\n")
    monkeypatch.chdir(tmp_path)
    assert [pair.image.name for pair in load_dataset(folder, supervised_only=False).labeled] == ["5.jpg"]


def test_forms_of_a_list_line(folder: DataConfig) -> None:
    root = Path(str(folder.root))
    (root / "labeled.txt").write_text("/images/0.png\t/masks/0.png\n\n  images/a b.png\tmasks/a b.png  \n")
    (root / "unlabeled.txt").write_text("images/3.jpg\nimages/4.png masks/4.png\n")
    dataset = load_dataset(folder, supervised_only=False)
    assert dataset.labeled == (
        Pair(root / "images/0.png", root / "masks/0.png"),
        Pair(root / "images/a b.png", root / "masks/a b.png"),
    )
    assert dataset.unlabeled == (Pair(root / "images/3.jpg", None), Pair(root / "images/4.png", None))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"root": None}, r"data\.root: expected the folder .*got none"),
        ({"root": "/no/such"}, r"data\.root: expected a folder, found none: /no/such$"),
        ({"root": "no/such"}, r"data\.root: expected a folder, found none: no/such in /.+"),
        (
            {"labeled": None, "masks": "labels/*"},
            r"data\.labeled: expected a list file, or images with masks .* got 12 images in images/\*\*/\* .*labels/\*",
        ),
        ({"unlabeled": None}, r"data\.unlabeled: expected a list file"),
        ({"val": None}, r"data\.val: expected a list file"),
        ({"val": "v.txt"}, r"data\.val: expected a list file, found none .*v\.txt"),
        ({"test": "images"}, r"data\.test: expected a list file, found none .*images"),
        (
            {"labeled": "empty.txt"},
            r"data\.labeled: expected at least one image, got an empty list: .*empty\.txt",
        ),
        (
            {"labeled": "images.txt"},
            r"expected `image mask`, or an .* that has a mask, on a line, got `images/33.jpg`: .*images\.txt, line 2",
        ),
        ({"unlabeled": "three.txt"}, r"expected `image`, or the id of one.* got `a b c`: .*three\.txt, line 1"),
        ({"unlabeled": "images/0.png"}, r"expected a list file of text, .*0\.png"),
        ({"num_classes": None}, r"data\.num_classes: expected the number of classes, got none"),
        ({"num_classes": 0}, r"data\.num_classes: expected 1 to 255, got 0"),
        ({"num_classes": 300}, r"data\.num_classes: expected 1 to 255, got 300"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: DataConfig, values: dict[str, object], message: str) -> None:
    root = Path(str(folder.root))
    (root / "empty.txt").write_text("\n\n")
    (root / "images.txt").write_text("\nimages/33.jpg\n")
    (root / "three.txt").write_text("a b c\n")
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(change(folder, **values), supervised_only=False)
    assert "\n" not in str(caught.value)


@pytest.fixture
def voc(tmp_path: Path, save: tuple) -> DataConfig:
    save_image, save_mask = save
    root = tmp_path / "VOC2012"
    for name in ("2007_000033", "2007_000042", "2008_000002"):
        save_image(root / "JPEGImages" / f"{name}.jpg", 30, 40)
    mask = np.zeros((30, 40))
    mask[5:20], mask[20:22] = 20, 255
    for name in ("2007_000033", "2007_000042"):
        save_mask(root / "SegmentationClass" / f"{name}.png", mask)
    for name in ("2007_000042", "2008_000002"):
        save_mask(root / "SegmentationClassAug" / f"{name}.png", mask, palette=False)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000033\n2007_000042\n")
    (root / "labeled.txt").write_text("JPEGImages/2007_000042.jpg SegmentationClassAug/2007_000042.png\n")
    (root / "unlabeled.txt").write_text("2008_000002\nJPEGImages/2007_000033.jpg\n")
    return DataConfig(name="voc", root=str(root), labeled="labeled.txt", unlabeled="unlabeled.txt")


def test_voc(voc: DataConfig) -> None:
    dataset = load_dataset(voc, supervised_only=False)
    root = Path(str(voc.root))
    assert dataset.num_classes == 21
    assert dataset.class_names[15] == "person"
    assert dataset.val[0] == Pair(root / "JPEGImages/2007_000033.jpg", root / "SegmentationClass/2007_000033.png")
    assert dataset.val[1].mask == root / "SegmentationClass/2007_000042.png"
    assert dataset.labeled[0].mask == root / "SegmentationClassAug/2007_000042.png"
    assert [pair.image.stem for pair in dataset.unlabeled] == ["2008_000002", "2007_000033"]
    assert dataset.val[0].mask is not None
    values = np.unique(read_mask(dataset.val[0].mask, dataset.mask_table))
    assert values.tolist() == [0, 20, 255]
    check_dataset(dataset, supervised_only=False)
    exchanged = load_dataset(change(voc, labeled="unlabeled.txt", unlabeled="labeled.txt"), supervised_only=False)
    masks = [root / "SegmentationClassAug/2008_000002.png", root / "SegmentationClass/2007_000033.png"]
    assert [pair.mask for pair in exchanged.labeled] == masks
    (root / "ids.txt").write_text("2008_000002\n")
    dataset = load_dataset(change(voc, labeled="ids.txt"), supervised_only=False)
    assert dataset.labeled[0].mask == root / "SegmentationClassAug/2008_000002.png"
    with pytest.raises(UserError, match=r"data\.num_classes: expected 21"):
        load_dataset(change(voc, num_classes=20), supervised_only=False)


def test_voc_colours() -> None:
    """The first and the last colours, and `potted plant`, of the development kit's colour map."""
    palette = voc_palette(21)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128),
             16: (0, 64, 0), 20: (0, 64, 128)}  # fmt: skip
    assert {index: tuple(palette[index].tolist()) for index in known} == known
    assert voc_palette(256)[255].tolist() == [224, 224, 192]


def cityscapes_tree(root: Path, save: tuple, kind: str) -> DataConfig:
    save_image, save_mask = save
    # labelIds: void, road, building, bicycle, licence plate; the same as trainIds.
    values = {"labelIds": [3, 7, 11, 33, 255], "labelTrainIds": [255, 0, 2, 18, 255]}[kind]
    for split, city in (("train", "ulm"), ("val", "bonn")):
        for name in (f"{city}_000000_000019", f"{city}_000001_000019"):
            save_image(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", 20, 40)
            mask = np.repeat(np.array(values), 4)[:, None].repeat(40, 1)
            save_mask(root / f"gtFine/{split}/{city}/{name}_gtFine_{kind}.png", mask, palette=False)
    (root / "labeled.txt").write_text(
        "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png "
        "gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png\n"
        "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png\n"
    )
    (root / "unlabeled.txt").write_text("leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png\n")
    return DataConfig(name="cityscapes", root=str(root), labeled="labeled.txt", unlabeled="unlabeled.txt")


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path: Path, save: tuple, kind: str) -> None:
    config = cityscapes_tree(tmp_path, save, kind)
    dataset = load_dataset(config, supervised_only=False)
    assert dataset.num_classes == 19
    assert dataset.class_names[10] == "sky"
    assert len(dataset.val) == len(dataset.labeled) == 2
    check_dataset(dataset, supervised_only=False)
    for pair in dataset.labeled + dataset.val:
        assert pair.mask is not None
        rows = read_mask(pair.mask, dataset.mask_table)[::4, 0]
        assert rows.tolist() == [255, 0, 2, 18, 255]
    save[1](tmp_path / f"gtFine/val/bonn/bonn_000000_000019_gtFine_{kind}.png", np.full((20, 40), 34), False)
    with pytest.raises(UserError, match=r"expected .*got 34.*bonn_000000_000019"):
        check_dataset(dataset, supervised_only=False)


def test_cityscapes_without_validation_images(tmp_path: Path, save: tuple) -> None:
    config = cityscapes_tree(tmp_path, save, "labelIds")
    (tmp_path / "leftImg8bit/val").rename(tmp_path / "leftImg8bit/other")
    with pytest.raises(UserError, match=r"data\.val: expected a list file for cityscapes, got none"):
        load_dataset(config, supervised_only=False)
    with_list = change(config, val="labeled.txt")
    assert len(load_dataset(with_list, supervised_only=False).val) == 2


def test_the_colours_of_masks_are_those_of_the_classes(folder: DataConfig) -> None:
    colors: list[int | list[int]] = [[0, 0, 0], [0, 255, 0], [255, 0, 0], [9, 9, 9]]
    assert load_dataset(change(folder, mask_values=colors), supervised_only=False).palette.tolist() == colors
    with pytest.raises(UserError, match=r"data\.mask_values: expected .* colours \[r, g, b\], got \[9, 9\]"):
        load_dataset(change(folder, mask_values=[*colors[:3], [9, 9]]), supervised_only=False)


def test_a_palette_of_ones_own():
    colors = ["red", "#00ff00", "#00f", "#010203", "white", "black"]
    palette = load_dataset(DataConfig(palette=colors), supervised_only=False).palette
    assert palette.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 2, 3], [255] * 3, [0] * 3]
    assert (parse_palette(format_palette(palette), 6) == palette).all()


@pytest.mark.parametrize(
    ("colors", "said"), [(["red"], "expected 6 colours, one a class, got 1"), (["#12"] * 6, "such as #804080 or red")]
)
def test_a_palette_that_is_none(colors, said):
    with pytest.raises(UserError, match=said):
        load_dataset(DataConfig(palette=colors), supervised_only=False)
