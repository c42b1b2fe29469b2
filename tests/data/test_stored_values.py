"""Masks by what they store: what cannot be right is said in one line, and what may be right is let pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.commands.split import main as split
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_dataset, load_dataset, read_mask
from maskmatch.data.checking.survey import survey_dataset
from maskmatch.data.decoding.mask_table import configured, identity

Masks = Sequence[tuple[Sequence[int], str]]  # of each mask: the values that it shows, and its mode
WriteSet = Callable[..., DataConfig]


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """A function that writes a folder of images with these masks; the last one is the validation image."""

    def write(masks: Masks, **options: object) -> DataConfig:
        rng = np.random.default_rng(0)
        for name in ("images", "masks"):
            (tmp_path / name).mkdir()
        for index, (values, mode) in enumerate(masks):
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(tmp_path / f"images/{index}.png")
            stored = np.resize(np.array(values, np.uint16 if mode == "I;16" else np.uint8), (12, 16))
            mask = Image.fromarray(stored)
            (mask.convert("1") if mode == "1" else mask).save(tmp_path / f"masks/{index}.png")
        lines = [f"images/{index}.png masks/{index}.png\n" for index in range(len(masks))]
        (tmp_path / "labeled.txt").write_text("".join(lines[:-1]))
        (tmp_path / "val.txt").write_text(lines[-1])
        lists = {"labeled": "labeled.txt", "unlabeled": "labeled.txt", "val": "val.txt"}
        return DataConfig(name="folder", root=str(tmp_path), **lists, **options)  # type: ignore[arg-type]

    return write


def refused(config: DataConfig) -> str:
    """The line that training ends with before its first step; check_data has it among its errors."""
    dataset = load_dataset(config, supervised_only=False)
    with pytest.raises(UserError) as caught:
        check_dataset(dataset, supervised_only=False)
    line = str(caught.value)
    assert "\n" not in line
    assert line in survey_dataset(dataset, supervised_only=False).errors
    return line


def accepted(config: DataConfig) -> list[str]:
    """What check_data warns of, where neither it nor training has anything against the masks."""
    dataset = load_dataset(config, supervised_only=False)
    check_dataset(dataset, supervised_only=False)
    found = survey_dataset(dataset, supervised_only=False)
    assert not found.errors
    return [line for line in found.warnings if "in the unlabelled list" not in line]


ALONE = r"data\.class_names: expected two classes or more, got one \(crack\): name the background as well"


@pytest.mark.parametrize("values", [[0, 255], [0, 1]])
def test_a_single_class(write_set: WriteSet, values: list[int]) -> None:
    """A network of one class can only answer it, and is always right."""
    config = write_set([(values, "L")] * 3, class_names=["crack"])
    with pytest.raises(UserError, match=ALONE + r".*\[background, crack\], with data\.mask_values 0,255"):
        load_dataset(config, supervised_only=False)
    named = {"class_names": ["background", "crack"], "mask_values": [0, 255] if 255 in values else None}
    assert accepted(DataConfig(**(vars(config) | named))) == []


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 1},
        {"mask_values": [255], "ignore_values": [0]},
        {"mask_values": [[255, 255, 255]], "ignore_values": [[0, 0, 0]]},
        {"class_names": ["crack"], "mask_values": [0, 255]},
        {"classes.txt": "crack\n"},
    ],
    ids=str,
)
def test_a_single_class_by_every_option(write_set: WriteSet, options: dict, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(options.pop("classes.txt", ""))
    with pytest.raises(UserError, match="expected two classes or more, got one"):
        load_dataset(write_set([([0, 255], "L")] * 3, **options), supervised_only=False)


def test_the_hint_for_a_class_too_many_names_the_background(write_set: WriteSet) -> None:
    line = refused(write_set([([0, 1, 2], "L")] * 3, class_names=["crack", "hole"]))
    assert "got 2 (counted from 1? name what 0 is as well, such as background; or set data.mask_values" in line


MIXED: dict[str, tuple[Masks, dict[str, object]]] = {
    "0 and 1 beside 0 and 255": ([([0, 1], "L"), ([0, 255], "L"), ([0, 1], "L")], {"num_classes": 2}),
    "1 bit beside 0 and 255": ([([0, 255], "1"), ([0, 255], "L"), ([0], "L")], {"num_classes": 2}),
    "labelled ones of classes, val of 255": ([([0, 1], "L"), ([0, 1], "L"), ([0, 255], "L")], {"num_classes": 2}),
    "by explicit values": ([([0, 1], "L"), ([0, 255], "L"), ([0, 1], "L")], {"mask_values": [0, 1]}),
    "three classes": ([([0, 1, 2], "L"), ([0, 2], "L"), ([0, 255], "L")], {"num_classes": 3}),
    "one of many": ([*[([0, 1], "L")] * 9, ([0, 255], "L"), ([0, 1], "L")], {"class_names": ["background", "crack"]}),
}


@pytest.mark.parametrize("name", MIXED)
def test_masks_stored_in_two_ways(write_set: WriteSet, name: str) -> None:
    """The objects of some would be ignored."""
    masks, options = MIXED[name]
    config = write_set(masks, **options)
    line = refused(config)
    binary = [index for index, (values, mode) in enumerate(masks) if values == [0, 255] and mode == "L"]
    assert re.match(r"mask values: expected all masks to store classes alike", line)
    assert f"{len(binary)} of 0 and 255, which is ignored" in line and line.endswith(f"masks/{binary[0]}.png")
    assert "--data.ignore_values '[255]'" in line
    accepted(DataConfig(**(vars(config) | {"ignore_values": [255]})))


def test_split_refuses_them_too(write_set: WriteSet, capsys: pytest.CaptureFixture) -> None:
    config = write_set(MIXED["one of many"][0])
    options = ["--data.name", "folder", "--data.root", str(config.root), "--data.num_classes", "2", "--labeled", "3"]
    assert split([*options, "--data.labeled", "labeled.txt"]) == 2
    assert "expected all masks to store classes alike" in capsys.readouterr().err


SOUND: dict[str, tuple[Masks, dict[str, object]]] = {
    "255 at the edges of objects": ([([0, 1, 255], "L"), ([0, 255], "L"), ([0, 1], "L")], {"num_classes": 2}),
    "empty images": ([([0, 1], "L"), ([0], "L"), ([0], "L")], {"num_classes": 2}),
    "nothing known of one image": ([([0, 1], "L"), ([255], "L"), ([0, 1], "L")], {"num_classes": 2}),
    "1 bit alone": ([([0, 255], "1")] * 3, {"num_classes": 2}),
    "1 bit beside 0 and 1": ([([0, 255], "1"), ([0, 1], "L"), ([0, 1], "L")], {"num_classes": 2}),
    "0 and 255 by name": ([([0, 255], "L")] * 3, {"mask_values": [0, 255]}),
    "no class 0": ([([1, 255], "L"), ([0, 1], "L"), ([0, 1], "L")], {"num_classes": 2}),
    "16 bits": ([([0, 1000], "I;16")] * 3, {"mask_values": [0, 1000]}),
}


@pytest.mark.parametrize("name", SOUND)
def test_no_false_alarm(write_set: WriteSet, name: str) -> None:
    masks, options = SOUND[name]
    assert accepted(write_set(masks, **options)) == []


def test_one_bit_among_listed_values(write_set: WriteSet) -> None:
    line = refused(write_set([([0, 255], "L"), ([0, 255], "1"), ([0, 255], "L")], mask_values=[0, 255]))
    assert "expected one of 0, 255, got 1 (a mask of 0 and 1, perhaps of 1 bit" in line and line.endswith("1.png")


@pytest.mark.parametrize("part", ["labeled", "val"])
@pytest.mark.parametrize(
    ("nothing", "options"),
    [([255], {"num_classes": 3}), ([7, 9], {"num_classes": 3, "ignore_values": [7, 9]})],
    ids=["255", "ignore_values"],
)
def test_nothing_labelled(write_set: WriteSet, part: str, nothing: list[int], options: dict[str, object]) -> None:
    known, unknown = ([0, 1, 2], "L"), (nothing, "L")
    masks = [unknown, unknown, known] if part == "labeled" else [known, unknown, unknown]
    line = refused(write_set(masks, **options))
    first = 0 if part == "labeled" else 2
    assert line.startswith(f"data.{part}: expected some pixels of a class") and line.endswith(f"masks/{first}.png")


def test_the_expected_values_are_those_of_the_options(write_set: WriteSet) -> None:
    line = refused(write_set([([0, 1, 9], "L")] * 3, mask_values=[1, 2, 3], ignore_values=[0]))
    assert "expected a class 1..3 or 0, got 9" in line


def test_an_unlisted_value_is_no_class_of_255(write_set: WriteSet) -> None:
    """There are 255 classes, 255 is ignored, and 300 is neither."""
    masks = [([0, 254, 300], "I;16")] * 3
    assert "got 300" in refused(write_set(masks, num_classes=255, ignore_values=[255, 301]))


def test_255_listed_values(write_set: WriteSet, tmp_path: Path) -> None:
    config = write_set([([0, 1000, 1254], "I;16")] * 3, mask_values=list(range(1000, 1255)), ignore_values=[0])
    assert accepted(config)[:2] == [f"no labelled image shows class {index}" for index in (1, 2)]
    table = configured(config, identity())
    found = read_mask(tmp_path / "masks/0.png", table)
    assert found.ravel()[:3].tolist() == [255, 0, 254] and found.dtype == np.uint8
    Image.fromarray(np.array([[1000, 999]], np.uint16)).save(tmp_path / "other.png")
    with pytest.raises(UserError, match=r"mask value: expected a class or what is ignored, got 999: .*other\.png"):
        read_mask(tmp_path / "other.png", table)


def test_an_unlisted_colour(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3], [9, 8, 7]]], np.uint8)).save(tmp_path / "a.png")
    table = configured(DataConfig(mask_values=[[1, 2, 3], [0, 0, 0]]), identity())
    with pytest.raises(UserError, match=r"got \[9, 8, 7\]: .*a\.png"):
        read_mask(tmp_path / "a.png", table)
