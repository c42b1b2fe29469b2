"""New splits: as many images as asked for, every class shown, nothing overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskmatch.commands.split import main
from maskmatch.commands.train import main as train
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_dataset, load_dataset
from maskmatch.data.listing.label_selection import choose, count_of

ORDERS = st.sampled_from(["even", "random"])


@given(st.integers(1, 60), st.integers(1, 8), st.floats(0.05, 0.9), ORDERS, st.integers(0, 9), st.data())
def test_every_class_is_shown(
    total: int, classes: int, share: float, order: str, seed: int, data: st.DataObject
) -> None:
    shown = np.random.default_rng(seed).random((total, classes)) < share
    count = data.draw(st.integers(min(total, classes), total))
    chosen = choose(shown, count, order, seed)  # type: ignore[arg-type]
    assert len(chosen) == len(set(chosen)) == count and chosen == sorted(chosen)
    assert (shown[chosen].any(0) == shown.any(0)).all()


@pytest.mark.parametrize(("total", "count"), [(100, 5), (7, 7), (10, 3), (1, 1)])
def test_evenly_spaced_where_no_class_asks_for_more(total: int, count: int) -> None:
    chosen = choose(np.ones((total, 2), bool), count, "even", 0)
    gaps = np.diff(chosen)
    assert len(chosen) == count and (not len(gaps) or gaps.max() - gaps.min() <= 1)
    assert chosen[0] == pytest.approx(total - 1 - chosen[-1], abs=1)


def test_the_seed_decides_a_random_choice() -> None:
    shown = np.ones((50, 1), bool)
    choices = [choose(shown, 5, "random", seed) for seed in (1, 1, 2)]
    assert choices[0] == choices[1] != choices[2]


def test_the_fewest_images_are_found_where_few_are_asked_for() -> None:
    shown = np.eye(6, dtype=bool)[np.arange(30) % 6]
    shown[17] = [1, 1, 1, 0, 0, 0]
    shown[4] = [0, 0, 0, 1, 1, 1]
    assert choose(shown, 2, "even", 0) == [4, 17]
    with pytest.raises(UserError, match="expected 2 images or more, as fewer show not every class, got 1"):
        choose(shown, 1, "even", 0)


@pytest.mark.parametrize(
    ("text", "count"), [("20", 20), ("1/8", 25), ("0.125", 25), ("1/999", 1), ("200", 200), ("1", 1)]
)
def test_numbers_and_parts(text: str, count: int) -> None:
    assert count_of(text, 200, "labeled") == count


@pytest.mark.parametrize("text", ["0", "-3", "201", "1.5", "3/2", "many", "1/0"])
def test_impossible_numbers(text: str) -> None:
    with pytest.raises(UserError, match=f"labeled: expected 1 to 200 images, .* got {text}"):
        count_of(text, 200, "labeled")


@pytest.fixture
def labelled_folder(tmp_path: Path, save: tuple) -> Path:
    """30 images with masks of which one alone shows class 2, and 5 without."""
    for i in range(35):
        save[0](tmp_path / f"images/site {i % 2}/{i:02d}.jpg", 16, 20, i)
        if i < 30:
            save[1](
                tmp_path / f"masks/site {i % 2}/{i:02d}.png",
                np.where(np.arange(320) < 9, 2 if i == 8 else 1, 0).reshape(16, 20),
            )
    return tmp_path


@pytest.mark.parametrize("order", ["even", "random"])
def test_the_command_line(labelled_folder: Path, capsys: pytest.CaptureFixture, order: str) -> None:
    root = labelled_folder
    data = ["--data.name", "folder", "--data.root", str(root), "--data.num_classes", "3"]
    assert main([*data, "--labeled", "1/3", "--val", "2", "--order", order]) == 0
    name = "1_3" if order == "even" else "1_3_seed0"
    assert f"8 labeled, 25 unlabeled, 2 val images: {root}/splits/{name}" in capsys.readouterr().out
    config = DataConfig(name="folder", root=str(root), split=name, num_classes=3)
    dataset = load_dataset(config, supervised_only=False)
    check_dataset(dataset, supervised_only=False)
    parts = [{pair.image for pair in part} for part in (dataset.labeled, dataset.unlabeled, dataset.val)]
    assert [len(part) for part in parts] == [8, 25, 2] and len(set.union(*parts)) == 35
    masks = [np.asarray(Image.open(pair.mask)) for pair in dataset.labeled if pair.mask]
    assert np.unique(np.stack(masks)).tolist() == [0, 1, 2]

    before = {path: path.read_text() for path in (root / "splits").rglob("*.txt")}
    assert main([*data, "--labeled", "1/3", "--order", order]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: output: expected a new folder") and str(root / "splits" / name) in error
    assert {path: path.read_text() for path in (root / "splits").rglob("*.txt")} == before


def test_a_broken_mask_is_named(labelled_folder: Path, capsys: pytest.CaptureFixture) -> None:
    path = labelled_folder / "masks/site 1/13.png"
    path.write_bytes(path.read_bytes()[:60])
    data = ["--data.name", "folder", "--data.root", str(labelled_folder), "--data.num_classes", "3"]
    assert main([*data, "--labeled", "4"]) == 2
    assert str(path) in capsys.readouterr().err
    assert not (labelled_folder / "splits").exists()


def test_no_chosen_image_is_unlabelled(labelled_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Also where the unlabelled list holds every image."""
    data = ["--data.name", "folder", "--data.root", str(labelled_folder), "--data.num_classes", "3"]
    lists = ["--data.labeled", "images/**/0*", "--data.unlabeled", "images/**/*"]
    assert main([*data, *lists, "--labeled", "6", "--val", "2"]) == 0
    assert "4 labeled, 29 unlabeled, 2 val images" in capsys.readouterr().out


def test_one_image_is_in_one_part(labelled_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Whatever it is called: a list that names it twice, links, copies, other formats, and what val has already."""
    root = labelled_folder
    image, mask = root / "images/site 0/00.jpg", root / "masks/site 0/00.png"
    (root / "link.jpg").symlink_to(image)
    (root / "copy.jpg").write_bytes(image.read_bytes())
    Image.open(image).save(root / "images/site 0/00.webp")
    again = [image, root / "link.jpg", root / "copy.jpg", root / "images/site 0/00.webp", root / "images/../link.jpg"]
    others = [root / f"images/site {i % 2}/{i:02d}.jpg" for i in range(1, 12)]
    masks = [mask] * len(again) + [root / f"masks/site {i % 2}/{i:02d}.png" for i in range(1, 12)]
    lines = [f"{image}\t{mask}\n" for image, mask in zip([*again, *others], masks, strict=True)]
    (root / "list.txt").write_text("".join(lines))
    (root / "held_out.txt").write_text(lines[-1])
    data = ["--data.name", "folder", "--data.root", str(root), "--data.num_classes", "3"]
    lists = ["--data.labeled", "list.txt", "--data.val", "held_out.txt", "--data.unlabeled", "list.txt"]
    assert main([*data, *lists, "--labeled", "8", "--val", "3", "--output", str(root / "split")]) == 0
    said = capsys.readouterr()
    assert said.err == "5 labelled images are left out: they are there twice, or in val or test\n"
    assert "5 labeled, 3 unlabeled, 3 val images" in said.out
    config = DataConfig(name="folder", root=str(root), split=str(root / "split"), num_classes=3)
    dataset = load_dataset(config, supervised_only=False)
    images = [pair.image.resolve() for part in (dataset.labeled, dataset.unlabeled, dataset.val) for pair in part]
    assert len(set(images)) == len(images) == 11 and others[-1] not in images


def test_a_split_without_unlabelled_images(labelled_folder: Path, capsys: pytest.CaptureFixture, refusal) -> None:
    data = ["--data.name", "folder", "--data.root", str(labelled_folder), "--data.num_classes", "3"]
    options = [*data, "--data.images", "images/*/[0-1]*", "--data.masks", "masks/*/[0-1]*", "--labeled", "20"]
    assert main([*options, "--val", "3"]) == 0
    out = capsys.readouterr().out
    assert "17 labeled, 0 unlabeled, 3 val images" in out
    assert "train with --data.split 20 --method.supervised_only true, as no image is left without a label\n" in out
    said = "expected at least one image, got an empty list: "
    for options in (["--data.split", "20"], ["--data.unlabeled", "splits/20/unlabeled.txt"]):
        error = refusal(train, *data, "--data.val", "splits/20/val.txt", *options)
        assert said in error and "train with --method.supervised_only true" in error
    config = DataConfig(name="folder", root=str(labelled_folder), split="20", num_classes=3)
    assert len(load_dataset(config, supervised_only=True).labeled) == 17
