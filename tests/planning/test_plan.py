"""Plans of small drawn folders: what is found, what is held out, and that training takes the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from maskmatch.commands.command_line import parse_train
from maskmatch.commands.plan import main
from maskmatch.common.errors import UserError
from maskmatch.planning import Plan, make_plan
from maskmatch.planning.held_out import choose


def draw(root: Path, *, images: str = "images", mask: str = "masks/{}.png", masked: int = 6, thing: int = 1) -> Path:
    """10 images of 64 x 64, of which the first `masked` have a mask of 0 and `thing`."""
    for i in range(10):
        target = np.zeros((64, 64), np.uint8)
        target[: 8 + i] = thing
        files = {f"{images}/{i}.png": np.full((64, 64, 3), 20 * i, np.uint8)}
        for name, pixels in (files | ({mask.format(i): target} if i < masked else {})).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name), pixels)
    return root


def options(plan: Plan) -> dict[str, object]:
    return {one.option: one.value for one in plan.choices}


@pytest.mark.parametrize(
    ("images", "mask"),
    [
        ("images", "masks/{}.png"),
        ("photos", "masks/{}.png"),
        ("JPEGImages", "SegmentationClass/{}.png"),
        ("all", "all/{}_mask.png"),
    ],
)
def test_layouts(tmp_path: Path, images: str, mask: str) -> None:
    plan = make_plan(draw(tmp_path, images=images, mask=mask), tmp_path / "lists")
    assert {part: len(pairs) for part, pairs in plan.lists.items()} == {"labeled": 5, "unlabeled": 4, "val": 1}


@pytest.mark.parametrize(("thing", "values"), [(1, None), (255, [0, 255]), (7, [0, 7])])
def test_values(tmp_path: Path, thing: int, values: list[int] | None) -> None:
    found = options(make_plan(draw(tmp_path, thing=thing), tmp_path / "lists"))
    assert (found.get("data.mask_values"), found["data.num_classes"]) == (values, 2)


def test_yours_is_kept_and_the_file_is_read_back(tmp_path: Path) -> None:
    plan = make_plan(draw(tmp_path), tmp_path / "lists", {"train.baseline_every": 0, "train.steps": 9})
    read = yaml.safe_load(plan.to_yaml())
    flat = {f"{section}.{name}": value for section, inner in read.items() for name, value in inner.items()}
    assert flat == options(plan)
    assert flat["train.baseline_every"] == 0 and "train.steps 9: (yours)" in plan.lines()


def test_all_masked_is_supervised(tmp_path: Path) -> None:
    chosen = options(make_plan(draw(tmp_path, masked=10), tmp_path / "lists"))
    assert chosen["method.supervised_only"] is True and "train.baseline_every" not in chosen


@pytest.mark.parametrize("masked", [0])
def test_no_masks_is_one_line(tmp_path: Path, masked: int) -> None:
    with pytest.raises(UserError, match=r"found no mask of an image"):
        make_plan(draw(tmp_path, masked=masked), tmp_path / "lists")


def test_held_out_leaves_every_class_a_mask() -> None:
    for seed in range(50):
        shown = np.random.default_rng(seed).random((20, 6)) < 0.2
        held = choose(shown, range(20), 4)
        rest = [i for i in range(20) if i not in held]
        assert len(held) <= 4
        assert (shown[rest].any(0) == shown.any(0)).all()


@pytest.mark.parametrize("masked", [6, 10])
def test_command_writes_what_train_takes_and_overwrites_nothing(tmp_path: Path, masked: int) -> None:
    file = tmp_path / "plan.yaml"
    argv = ["--data.root", str(draw(tmp_path / "set", masked=masked)), "--output", str(file), "--train.steps", "9"]
    assert main(argv) == 0
    config = parse_train(["--config", str(file)])
    assert (config.train.steps, config.data.name, config.data.num_classes) == (9, "folder", 2)
    assert len((tmp_path / "plan-lists/labeled.txt").read_text().splitlines()) == masked - masked // 5
    before = file.read_bytes()
    assert main(argv) == 2 and file.read_bytes() == before
