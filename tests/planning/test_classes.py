"""What masks store, and what files beside them call it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmatch.common.errors import UserError
from maskmatch.data.decoding.files import read_mask
from maskmatch.planning import Choice, Plan
from maskmatch.planning.class_files import named_classes
from maskmatch.planning.classes import Classes, find_classes
from maskmatch.planning.mask_reading import read_masks
from maskmatch.planning.seen import Seen
from tests.planning.test_folders import draw, planned, target, write

RED, GREEN, BLACK, VOID = (255, 0, 0), (0, 255, 0), (0, 0, 0), (224, 224, 192)


def classes_of(root: Path, **yours: object) -> Classes:
    from maskmatch.data.dataset import Pair

    pairs = [Pair(root / "images" / f"{mask.stem}.jpg", mask) for mask in sorted((root / "masks").glob("*.png"))]
    named = named_classes(root, [pair.mask for pair in pairs if pair.mask])
    colors = frozenset(named.values or ()) if named and named.colored else frozenset[int]()
    options = {f"data.{name}": value for name, value in yours.items()}
    return find_classes(root, read_masks(pairs, Seen(root), colors), named, options)


def chosen(classes: Classes) -> dict[str, object]:
    return {one.option.removeprefix("data."): one.value for one in classes.choices}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 1, 2), {"num_classes": 3}),
        ((0, 1, 255), {"num_classes": 2}),
        ((0, 255), {"mask_values": [0, 255], "num_classes": 2}),
        ((0, 128, 255), {"mask_values": [0, 128, 255], "num_classes": 3}),
        ((1, 2, 3), {"mask_values": [1, 2, 3], "num_classes": 3}),
        ((7, 11, 26, 255), {"mask_values": [7, 11, 26], "num_classes": 3}),
        ((BLACK, RED, GREEN), {"mask_values": [[0, 0, 0], [0, 255, 0], [255, 0, 0]], "num_classes": 3}),
        (((0, 0, 0), (0, 0, 128)), {"mask_values": [[0, 0, 0], [0, 0, 128]], "num_classes": 2}),
        (((0, 0, 0), (9, 9, 9)), {"mask_values": [0, 9], "num_classes": 2}),
    ],
)
def test_values(tmp_path: Path, values: tuple[object, ...], expected: dict[str, object]) -> None:
    root = draw(tmp_path, values=values)
    found = classes_of(root)
    assert chosen(found) == expected
    stored = cv2.cvtColor(cv2.imread(str(root / "masks/003.png")), cv2.COLOR_BGR2RGB)
    classes = read_mask(root / "masks/003.png", found.table)
    number = 0
    for value in sorted(values, key=lambda value: value if isinstance(value, tuple) else (value,)):
        of_value = (stored == np.array(value)).all(-1)
        ignored = value == 255 and expected["num_classes"] != len(values)
        assert (classes[of_value] == (255 if ignored else number)).all()
        if not ignored:
            assert found.pixels[3, number] == of_value.sum()
        number += not ignored


def test_a_handful_of_pixels_is_no_class(tmp_path: Path) -> None:
    root = draw(tmp_path)
    pixels = target(4, (0, 1, 2))
    pixels[5, 5:9] = 77
    write(root / "masks/004.png", pixels)
    found = classes_of(root)
    assert chosen(found) == {"ignore_values": [77, 255], "num_classes": 3}
    assert found.notes == [f"ignored in masks, as it is in 4 pixels alone: 77, such as in {root / 'masks/004.png'}"]
    assert (read_mask(root / "masks/004.png", found.table)[5, 5:9] == 255).all()


def test_masks_stored_in_two_ways_are_refused(tmp_path: Path) -> None:
    root = draw(tmp_path, values=(0, 1))
    write(root / "masks/004.png", target(4, (0, 255)))
    with pytest.raises(UserError, match="store classes alike"):
        classes_of(root)


def test_cvat(tmp_path: Path) -> None:
    root = draw(tmp_path / "set", "JPEGImages/{}.jpg", "SegmentationClass/{}.png", values=(BLACK, RED, GREEN, VOID))
    draw(root, "elsewhere/{}.jpg", "SegmentationObject/{}.png", names=("000",))
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar: big:0,255,0::\n"
        "#1 'é':255,0,0::\nunseen:1,2,3::\nignored:224,224,192::\n",
        encoding="utf-8",
    )
    plan, found = planned(root)
    assert found["data.class_names"] == ["background", "car: big", "#1 'é'", "unseen"]
    assert found["data.mask_values"] == [[0, 0, 0], [0, 255, 0], [255, 0, 0], [1, 2, 3]]
    assert found["data.ignore_values"] == [list(VOID)]
    assert any("no mask shows unseen" in note for note in plan.notes)
    assert len(plan.lists["labeled"]) == 8
    write(root / "SegmentationClass/002.png", target(2, (BLACK, (9, 8, 7))))
    with pytest.raises(UserError, match=r"expected values of labelmap.txt, got \[9, 8, 7\] in 1536 pixels"):
        planned(root)


def test_cvat_as_a_palette(tmp_path: Path) -> None:
    from PIL import Image

    root = draw(tmp_path)
    for i in range(10):
        picture = Image.fromarray(target(i, (0, 1, 2)))
        picture.putpalette([*BLACK, *RED, *GREEN])
        picture.save(root / f"masks/{i:03d}.png")
    (root / "labelmap.txt").write_text("background:0,0,0::\ngreen:0,255,0::\nred:255,0,0::\n")
    found = classes_of(root)
    assert found.names == ("background", "green", "red")
    assert read_mask(root / "masks/000.png", found.table)[[0, 20, 40], 0].tolist() == [0, 2, 1]


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 5, 9)])
def test_roboflow(tmp_path: Path, values: tuple[int, ...]) -> None:
    root = tmp_path / "set"
    for part in ("train", "valid", "test"):
        names = tuple(f"{part}{i}_jpg.rf.0a" for i in range(4))
        draw(root, f"{part}/{{}}.jpg", f"{part}/{{}}_mask.png", values=values, names=names, masked=3)
        rows = [f"{value}, {name}" for value, name in zip(values, ("background", "cat, big", "dog"), strict=True)]
        (root / part / "_classes.csv").write_text("\n".join(["Pixel Value, Class", *rows]))
    plan, found = planned(root)
    assert found["data.class_names"] == ["background", "cat, big", "dog"]
    assert found.get("data.mask_values") == (None if values == (0, 1, 2) else list(values))
    assert {part: len(pairs) for part, pairs in plan.lists.items()} == {
        "labeled": 3, "unlabeled": 1, "val": 3, "test": 4,
    }  # fmt: skip


def test_names_without_colours_are_refused(tmp_path: Path) -> None:
    root = draw(tmp_path, values=(BLACK, RED))
    (root / "classes.txt").write_text("ground\nroof\n")
    with pytest.raises(UserError, match=r"the colour of each class in the order of"):
        classes_of(root)
    found = classes_of(root, mask_values=[list(RED), list(BLACK)])
    assert found.names == ("ground", "roof") and found.choices == []
    assert read_mask(root / "masks/000.png", found.table)[0, 0] == 1


TEXT = st.text(st.characters(exclude_categories=()), min_size=1, max_size=12)


@settings(max_examples=60)
@given(names=st.lists(TEXT, min_size=1, max_size=3), path=TEXT, reason=TEXT)
def test_any_text_is_read_back_and_never_obeyed(names: list[str], path: str, reason: str) -> None:
    plan = Plan([Choice("data.root", path, reason), Choice("data.class_names", names, reason)], {}, [reason])
    text = plan.to_yaml().encode("utf-8").decode("utf-8")
    assert yaml.safe_load(text) == {"data": {"root": path, "class_names": names}}
    assert len(text.splitlines()) == 3
    assert all(line.isprintable() for line in plan.lines())
