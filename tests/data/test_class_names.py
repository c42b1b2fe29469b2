"""What the classes are called: classes.txt against the options, their order, and the colours that go with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import Dataset, load_dataset
from maskmatch.data.decoding.classes import VOC, voc_palette
from maskmatch.data.listing.class_names import first_moved


def load(config: DataConfig, names: list[str] | None, classes: bytes = b"", **options: object) -> Dataset:
    (Path(str(config.root)) / "classes.txt").write_bytes(classes)
    changed = dataclasses.replace(config, class_names=names, **options)  # type: ignore[arg-type]
    return load_dataset(changed, supervised_only=False)


CLASSES = b"sky\nold wall\ncar\ntraffic_light\n"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["old wall", "sky", "car", "traffic_light"], "whose class 1 is old wall, got old wall as class 0"),
        (["sky", "Traffic Light", "car", "hut"], "whose class 3 is traffic_light, got Traffic Light as class 1"),
        (["car", "tree", "bus", "hut"], "whose class 2 is car, got car as class 0"),
    ],
)
def test_another_order_than_that_of_the_file(folder: DataConfig, names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=rf"data\.class_names: expected the order of classes\.txt, {said} \(.*mend it"):
        load(folder, names, CLASSES)


def test_another_order_of_colours(folder: DataConfig) -> None:
    colors = [[index, 0, 0] for index in range(4)]
    with pytest.raises(UserError, match=r"expected the order of classes\.txt"):
        load(folder, ["old wall", "sky", "car", "traffic_light"], CLASSES, mask_values=colors)


@pytest.mark.parametrize(
    "names",
    [
        ["sky", "old wall", "car", "traffic_light"],
        ["Sky", "Old_Wall", "CAR", "traffic light"],
        ["heaven", "wall", "car", "lamp"],
    ],
)
def test_the_same_order_in_other_words(folder: DataConfig, names: list[str]) -> None:
    dataset = load(folder, names, CLASSES)
    assert dataset.class_names == tuple(names) and dataset.notes == ()


def test_names_of_which_the_file_has_none(folder: DataConfig) -> None:
    dataset = load(folder, ["a", "b", "c", "d"], CLASSES)
    assert dataset.class_names == ("a", "b", "c", "d")
    assert dataset.notes == ("data.class_names: classes.txt has none of these names: class 0 is a here and sky there",)


def test_no_file_and_an_empty_one(folder: DataConfig) -> None:
    assert load(folder, ["1", "0", "3", "2"]).notes == ()
    (Path(str(folder.root)) / "classes.txt").unlink()
    assert load_dataset(folder, supervised_only=False).class_names == ("0", "1", "2", "3")


def test_another_order_than_that_of_a_public_data_set() -> None:
    names = [VOC[1], VOC[0], *VOC[2:]]
    assert first_moved(names, VOC) == ("aeroplane", 0, 1)
    assert first_moved([*VOC[:20], "screen"], VOC) is None
    assert first_moved(["car", "bus", "tree"], ["car", "car", "bus"]) == ("bus", 1, 2)  # which `car` is not known


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("straße\nb\nc\nd\n".encode("latin1"), r"in UTF-8, got byte 0xdf in line 1, at byte 4"),
        (b"a\nb\n\xe9t\xe9\nd\n", r"in UTF-8, got byte 0xe9 in line 3, at byte 4"),
        (b"a\0b\n", r"got a zero at byte 1"),
    ],
)
def test_a_file_that_is_no_text(folder: DataConfig, content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=rf"expected one class name on a line.*{said}.*classes\.txt") as caught:
        load(folder, None, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_in_unicode(folder: DataConfig, encoding: str, end: str) -> None:
    names = ["erde", "草地", "für\u2028zwei", "도로"]
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    assert load(folder, None, (mark + end.join(names)).encode(encoding)).class_names == tuple(names)


def palette_mask(path: Path, stored: list[int], colors: np.ndarray) -> None:
    with Image.open(path) as mask:
        width, height = mask.size
    picture = Image.fromarray(np.resize(np.array(stored, np.uint8), (height, width)))
    picture.putpalette(colors.astype(np.uint8).tobytes())
    picture.save(path)


@pytest.mark.parametrize(
    ("values", "ignored"),
    [([1, 2, 3, 4], [0]), ([4, 1, 0, 7], None), ([0, 1, 2, 3], None), (None, [9])],
    ids=str,
)
def test_colours_are_those_of_what_masks_store(
    folder: DataConfig, values: list[int] | None, ignored: list[int] | None
) -> None:
    colors = np.random.default_rng(1).integers(0, 256, (12, 3))
    palette_mask(Path(str(folder.root)) / "masks/0.png", values or [0, 1, 2, 3], colors)
    dataset = load(folder, None, mask_values=values, ignore_values=ignored)
    assert dataset.palette.tolist() == colors[values or [0, 1, 2, 3]].tolist()


def test_a_palette_that_does_not_reach_all_values(folder: DataConfig) -> None:
    palette_mask(Path(str(folder.root)) / "masks/0.png", [0, 1], np.ones((3, 3)))
    dataset = load(folder, None, mask_values=[0, 1, 2, 3])
    np.testing.assert_array_equal(dataset.palette, voc_palette(4))
