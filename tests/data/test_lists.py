"""Split files of every dialect of the field, and where splits are found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import Pair, check_dataset, load_dataset, read_mask


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


VOC = [
    "JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png",
    "2007_000032",
    "JPEGImages/2007_000032.jpg",
    "/JPEGImages/2007_000032.jpg\t/SegmentationClassAug/2007_000032.png",
    "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png",
]


@pytest.mark.parametrize("line", VOC)
@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationClassAug"])
def test_dialects_of_voc(tmp_path: Path, save: tuple, line: str, masks: str) -> None:
    """Whichever folder a list names: SBD's masks are found in the one that is there."""
    save[0](tmp_path / "JPEGImages/2007_000032.jpg", 20, 30)
    save[1](tmp_path / masks / "2007_000032.png", np.full((20, 30), 20))
    listed = str(write(tmp_path / "list.txt", f"{line}\n"))
    config = DataConfig(name="voc", root=str(tmp_path), labeled=listed, unlabeled=listed, val=listed)
    dataset = load_dataset(config, supervised_only=False)
    image = tmp_path / "JPEGImages/2007_000032.jpg"
    assert dataset.labeled == (Pair(image, tmp_path / masks / "2007_000032.png"),)
    assert dataset.unlabeled == (Pair(image, None),)
    check_dataset(dataset, supervised_only=False)


STOCK = "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png"
CITYSCAPES = [
    f"{STOCK} gtFine/train/ulm/ulm_000001_000019_gtFine_labelTrainIds.png",
    STOCK,
    "ulm_000001_000019",
    "/images/train/ulm_000001_000019.png\t/segmentation/train/ulm_000001_000019_gtFine.png",
]


@pytest.mark.parametrize("line", CITYSCAPES)
def test_dialects_of_cityscapes(tmp_path: Path, save: tuple, line: str) -> None:
    """All of them on a stock download, which has labelIds alone."""
    save[0](tmp_path / STOCK, 20, 40)
    mask = tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"
    save[1](mask, np.full((20, 40), 26), False)
    listed = str(write(tmp_path / "list.txt", f"{line}\n"))
    config = DataConfig(name="cityscapes", root=str(tmp_path), labeled=listed, unlabeled=listed, val=listed)
    dataset = load_dataset(config, supervised_only=False)
    assert dataset.labeled == dataset.val == (Pair(tmp_path / STOCK, mask),)
    assert dataset.unlabeled == (Pair(tmp_path / STOCK, None),)
    check_dataset(dataset, supervised_only=False)
    assert np.unique(read_mask(mask, dataset.mask_table)).tolist() == [13]  # car


@pytest.mark.parametrize("line", [CITYSCAPES[3]])
def test_cityscapes_as_cps_lays_it_out(tmp_path: Path, save: tuple, line: str) -> None:
    image, mask = (tmp_path / field.lstrip("/") for field in line.split("\t"))
    save[0](image, 20, 40)
    save[1](mask, np.full((20, 40), 18), False)
    listed = str(write(tmp_path / "list.txt", f"{line}\n"))
    config = DataConfig(name="cityscapes", root=str(tmp_path), labeled=listed, unlabeled=listed, val=listed)
    dataset = load_dataset(config, supervised_only=False)
    assert dataset.labeled == (Pair(image, mask),)
    check_dataset(dataset, supervised_only=False)


@pytest.mark.parametrize("images", ["", "images/"])
@pytest.mark.parametrize("masks", ["masks", "masks/train2017"])
def test_coco(tmp_path: Path, save: tuple, images: str, masks: str) -> None:
    name = "000000283213"
    save[0](tmp_path / f"{images}train2017/{name}.jpg", 20, 30)
    save[1](tmp_path / f"{masks}/{name}.png", np.repeat([0, 1, 80, 255], 150).reshape(20, 30), False)
    save[0](tmp_path / f"{images}val2017/000000000139.jpg", 20, 30)
    save[1](tmp_path / f"{masks.replace('train', 'val')}/000000000139.png", np.zeros((20, 30)), False)
    pair = Pair(tmp_path / f"{images}train2017/{name}.jpg", tmp_path / f"{masks}/{name}.png")
    for line in (f"{images}train2017/{name}.jpg masks/{name}.png", name, f"{images}train2017/{name}.jpg"):
        listed = str(write(tmp_path / "list.txt", line))
        config = DataConfig(name="coco", root=str(tmp_path), labeled=listed, unlabeled=listed)
        dataset = load_dataset(config, supervised_only=False)
        assert dataset.labeled == (pair,)
        assert dataset.num_classes == 81 and len(set(dataset.class_names)) == 81
        assert [pair.image.name for pair in dataset.val] == ["000000000139.jpg"]
        check_dataset(dataset, supervised_only=False)


def test_coco_with_its_own_annotations_alone(tmp_path: Path, save: tuple) -> None:
    save[0](tmp_path / "train2017/000000283213.jpg", 20, 30)
    polygons = tmp_path / "annotations/instances_train2017.json"
    polygons.parent.mkdir()
    polygons.write_text("{}")
    listed = str(write(tmp_path / "list.txt", "000000283213"))
    config = DataConfig(name="coco", root=str(tmp_path), labeled=listed, unlabeled=listed, val=listed)
    with pytest.raises(UserError, match=rf"index PNGs in masks/, got annotations in JSON alone .*: {polygons}"):
        load_dataset(config, supervised_only=False)
    save[1](tmp_path / "masks/000000283213.png", np.zeros((20, 30)), False)
    load_dataset(config, supervised_only=False)


def test_ade20k(tmp_path: Path, save: tuple) -> None:
    for part, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        save[0](tmp_path / f"images/{part}/{name}.jpg", 20, 30)
        mask = np.repeat([0, 1, 13, 150], 150).reshape(20, 30)
        save[1](tmp_path / f"annotations/{part}/{name}.png", mask, False)
    train = "images/training/ADE_train_00000001.jpg"
    for line in (f"{train} annotations/training/ADE_train_00000001.png", "ADE_train_00000001", train):
        listed = str(write(tmp_path / "list.txt", line))
        config = DataConfig(name="ade20k", root=str(tmp_path), labeled=listed, unlabeled=listed)
        dataset = load_dataset(config, supervised_only=False)
        check_dataset(dataset, supervised_only=False)
        pairs = dataset.labeled + dataset.val
        assert [pair.image.stem for pair in pairs] == ["ADE_train_00000001", "ADE_val_00000001"]
        assert dataset.num_classes == 150 and dataset.class_names[12] == "person"
        for pair in pairs:
            assert pair.mask is not None
            assert np.unique(read_mask(pair.mask, dataset.mask_table)).tolist() == [0, 12, 149, 255]


def test_lines_of_unusual_names(folder: DataConfig) -> None:
    root = Path(str(folder.root))
    (root / "images/my photo 1.png").write_bytes((root / "images/0.png").read_bytes())
    (root / "masks/my photo 1.png").write_bytes((root / "masks/0.png").read_bytes())
    absolute = f"{root}/images/1.jpg {root}/masks/1.png"
    lines = f"\ufeffimages/my photo 1.png\n{absolute}\n{root}/images/2.png\n"
    (root / "labeled.txt").write_text(lines, encoding="utf-8")
    labeled = load_dataset(folder, supervised_only=False).labeled
    assert labeled[2] == Pair(root / "images/2.png", root / "masks/2.png")
    assert labeled[0] == Pair(root / "images/my photo 1.png", root / "masks/my photo 1.png")
    assert labeled[1] == Pair(root / "images/1.jpg", root / "masks/1.png")


@pytest.fixture
def with_split(folder: DataConfig) -> DataConfig:
    return dataclasses.replace(folder, labeled=None, unlabeled=None, val=None, split="1_4")


@pytest.mark.parametrize("place", ["set/splits", "splits", "here/splits", "here/splits/folder"])
def test_a_split_is_found_by_its_name(
    with_split: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(tmp_path / place / "1_4/labeled.txt", "images/1.jpg masks/1.png\n")
    write(tmp_path / place / "1_4/unlabeled.txt", "images/3.jpg\nimages/5.jpg\n")
    write(tmp_path / place / "val.txt", "images/10.png masks/10.png\n")
    for split in ("1_4", str(tmp_path / place / "1_4")):
        config = dataclasses.replace(with_split, split=split)
        dataset = load_dataset(config, supervised_only=False)
        assert (len(dataset.labeled), len(dataset.unlabeled), len(dataset.val), len(dataset.test)) == (1, 2, 1, 0)
    write(tmp_path / place / "1_4/val.txt", "images/10.png masks/10.png\nimages/11.jpg masks/11.png\n")
    assert len(load_dataset(with_split, supervised_only=False).val) == 2
    own = dataclasses.replace(with_split, labeled="labeled.txt")
    assert len(load_dataset(own, supervised_only=False).labeled) == 3


def test_a_split_that_is_not_there(with_split: DataConfig) -> None:
    root = Path(str(with_split.root))
    write(root / "splits/1_8/labeled.txt", "")
    write(root / "splits/folder/92/labeled.txt", "")
    with pytest.raises(UserError, match=r"data\.split: expected .* got 1_4; there are 1_8, folder/92$"):
        load_dataset(with_split, supervised_only=False)


def test_camvid_by_its_split(camvid: DataConfig) -> None:
    config = DataConfig(name="folder", root=camvid.root, split="1_32")
    dataset = load_dataset(config, supervised_only=False)
    assert (len(dataset.labeled), len(dataset.unlabeled), len(dataset.val), len(dataset.test)) == (12, 355, 101, 233)
    check_dataset(dataset, supervised_only=False)


ROBOFLOW = "photo_jpg.rf.0f0a"


@pytest.mark.parametrize(
    ("name", "image", "mask"),
    [
        ("folder", "images/{}.jpg", "masks/{}.png"),
        ("voc", "JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("cityscapes", "leftImg8bit/train/{}/{}_leftImg8bit.png", "gtFine/train/{}/{}_gtFine_labelTrainIds.png"),
        ("coco", "train2017/{}.jpg", "masks/{}.png"),
        ("ade20k", "images/training/{}.jpg", "annotations/training/{}.png"),
    ],
)
@pytest.mark.parametrize("identifier", [ROBOFLOW, "v1.0", "a.b.c", "IMG_1.png", "1."])
def test_ids_with_dots(tmp_path: Path, name: str, image: str, mask: str, identifier: str) -> None:
    if identifier == "IMG_1.png" and name != "folder":
        pytest.skip("an id that ends as a file does is known by what is there, which a folder alone looks at")
    city = identifier.partition("_")[0]
    fields = (city, identifier) if name == "cityscapes" else (identifier,)
    for path in (image.format(*fields), mask.format(*fields)):
        write(tmp_path / path, "")
    listed = str(write(tmp_path / "list.txt", f"{identifier}\n"))
    config = DataConfig(name=name, root=str(tmp_path), labeled=listed, val=listed, num_classes=None)
    config.num_classes = 2 if name == "folder" else None
    pair = Pair(tmp_path / image.format(*fields), tmp_path / mask.format(*fields))
    assert load_dataset(config, supervised_only=True).labeled == (pair,)


def test_an_unknown_id_with_dots_is_named(folder: DataConfig) -> None:
    write(Path(str(folder.root)) / "labeled.txt", f"0\n{ROBOFLOW}\n")
    with pytest.raises(UserError, match=rf"id that has a mask, on a line, got `{ROBOFLOW}`: .*labeled\.txt, line 2"):
        load_dataset(folder, supervised_only=False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_with_a_mark_of_its_encoding(folder: DataConfig, encoding: str) -> None:
    labeled = load_dataset(folder, supervised_only=False).labeled
    path = Path(str(folder.root)) / "labeled.txt"
    path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    assert load_dataset(folder, supervised_only=False).labeled == labeled


def test_a_list_in_utf_16_without_its_mark(folder: DataConfig) -> None:
    path = Path(str(folder.root)) / "labeled.txt"
    path.write_bytes(path.read_text().encode("utf-16-le"))
    with pytest.raises(UserError, match=r"expected a list file of text, got a zero at byte 1: .*labeled\.txt"):
        load_dataset(folder, supervised_only=False)
