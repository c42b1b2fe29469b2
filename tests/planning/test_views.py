"""Crop, scales, colours and flips, for images that were drawn so that the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskmatch.data.dataset import Pair
from maskmatch.planning.looks import Looks, look_at, recall
from maskmatch.planning.views import CROP_STEP, colors, crop_and_scales, flips
from tests.planning.test_folders import write

IDENTITY = np.arange(256, dtype=np.uint8)


def options(sides: list[float], *, image: tuple[int, int] = (240, 320), largest: int = 128) -> dict[str, object]:
    names = [f"class {i}" for i in range(len(sides))]
    found = crop_and_scales(np.array([image]), np.array(sides), names, stride=4, largest=largest)
    return {one.option: one.value for one in found}


@pytest.mark.parametrize(
    ("sides", "scales"),
    [
        ([90, 40], [0.5, 1.5]),
        ([90, 8], [0.5, 1.5]),
        ([90, 6], [1.0, 2.0]),
        ([90, 1], [1.0, 2.0]),
        ([90, np.nan], [0.5, 1.5]),
    ],
)
def test_scales_by_the_smallest_things(sides: list[float], scales: list[float]) -> None:
    assert options(sides)["data.scale_range"] == scales


@given(
    height=st.integers(8, 5000), width=st.integers(8, 5000), side=st.floats(1, 500), largest=st.integers(2, 32)
)  # fmt: skip
def test_crops_are_what_networks_take(height: int, width: int, side: float, largest: int) -> None:
    found = options([side], image=(height, width), largest=largest * CROP_STEP)
    size = found["data.crop_size"]
    crop = [size, size] if isinstance(size, int) else size
    low, high = found["data.scale_range"]
    assert all(64 <= one <= largest * CROP_STEP and one % CROP_STEP == 0 for one in crop)
    assert 0 < low < high and all(one % found["method.patch_size"] == 0 for one in crop)
    assert (low + high) / 2 * side >= min(8, 1.5 * side)


def scenes(root: Path, *, hue: bool, number: int = 10) -> list[Pair]:
    """Two halves, told apart by their hue at one brightness, or by their brightness."""
    rng = np.random.default_rng(0)
    first, second = ((170, 60, 60), (20, 118, 120)) if hue else ((60, 60, 60), (180, 180, 180))
    pairs = []
    for i in range(number):
        mask = np.zeros((32, 32), np.uint8)
        mask[:, :16] = 1
        mask = mask if i % 2 else np.rot90(mask, 2)
        image = np.where(mask[..., None] == 1, first, second) + rng.integers(-15, 15, (32, 32, 3))
        pair = Pair(root / f"{i}.png", root / f"{i}_mask.png")
        write(pair.image, image.astype(np.uint8))
        write(root / f"{i}_mask.png", mask.copy())
        pairs.append(pair)
    return pairs


@pytest.mark.parametrize("hue", [True, False])
def test_hue_stays_where_it_tells_the_classes(tmp_path: Path, hue: bool) -> None:
    looks = look_at(scenes(tmp_path, hue=hue), IDENTITY, 2)
    strengths, gray = (one.value for one in colors(looks, 2))
    assert looks.by_color > 0.95
    assert (strengths[3], gray) == ((0, 0) if hue else (0.25, 0.2))


def test_recall_is_that_of_the_likeliest_class_elsewhere() -> None:
    """Against a loop over pixels."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 9, (3, 4, 6))
    right = np.zeros(4)
    for fold in range(3):
        rest = np.delete(counts, fold, 0).sum(0) + 1
        for label in range(4):
            for at in range(6):
                likelihood = [rest[c, at] / rest[c].sum() for c in range(4)]
                right[label] += counts[fold, label, at] * (int(np.argmax(likelihood)) == label)
    assert recall(counts) == pytest.approx((right / counts.sum((0, 2))).mean())
    assert np.isnan(recall(counts[:1]))


def test_sides_are_those_of_things(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[4:14, 4:14] = mask[30:40, 30:40] = 1  # two squares of 10
    mask[60, ::2] = 1  # and specks
    write(tmp_path / "1.png", np.zeros((64, 64, 3), np.uint8))
    write(tmp_path / "1_mask.png", mask)
    looks = look_at([Pair(tmp_path / "1.png", tmp_path / "1_mask.png")], IDENTITY, 3)
    assert looks.sides[1] == 10 and np.isnan(looks.sides[2]) and np.isnan(looks.by_color)


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (("heart", "left lung", "right lung"), 0.0),
        (("other", "Lunge_links", "Lunge_rechts"), 0.0),
        (("其他", "左肺", "右肺"), 0.0),
        (("lung R", "lung L", "rest"), 0.0),
        (("bright", "leftover", "rest"), 0.5),
        (("left lane", "rest", "sky"), 0.5),
        (("left lung", "right kidney", "sky"), 0.5),
    ],
)
def test_flips_by_names(names: tuple[str, ...], flip: float) -> None:
    assert flips(np.ones((4, 3, 8, 8), np.float32), names).value == flip


@pytest.mark.parametrize(("kind", "flip"), [("even", 0.5), ("mirrored", 0.0), ("one side", 0.0), ("few", 0.5)])
def test_flips_by_layouts(kind: str, flip: float) -> None:
    layouts = np.random.default_rng(0).random((12, 3, 8, 8)).astype(np.float32) * 0.05
    layouts[:, 0] = 1
    if kind == "mirrored":
        layouts[:, 1, 2:6, 1:3] = layouts[:, 2, 2:6, 5:7] = 1
        layouts = layouts[:6]  # too few for a class that keeps to one side
    elif kind in ("one side", "few"):
        layouts[:, 1] = 0
        layouts[: 12 if kind == "one side" else 3, 1, 2:4, 5:7] = 1
    assert flips(layouts, ("a", "b", "c")).value == flip


def test_looks_are_the_same_twice(tmp_path: Path) -> None:
    pairs = scenes(tmp_path, hue=True, number=4)
    one, other = (look_at(pairs, IDENTITY, 2) for _ in range(2))
    assert isinstance(one, Looks) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
