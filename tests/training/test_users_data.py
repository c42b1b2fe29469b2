"""Runs on data with names, masks and files as users have them; and what may not change before a run is resumed."""

import hashlib
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from maskmatch.commands.train import main

NAMES = ["[/unk]", "$x_{$", ":car: [dry]", "_background_"]
STEPS = ("--train.steps", 2)


@pytest.fixture
def data(tmp_path):
    """A folder of four images, each with a mask of four classes; the options that train on it."""
    root = tmp_path / "da[/old]ta"
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(4):
        Image.fromarray(generator.integers(0, 256, (40, 48, 3), np.uint8)).save(root / f"images/{index}.png")
        Image.fromarray(generator.integers(0, 4, (40, 48), np.uint8)).save(root / f"masks/{index}.png")
    lines = [f"images/{index}.png masks/{index}.png\n" for index in range(4)]
    for part, chosen in {"labeled": lines[:2], "unlabeled": lines[:3], "val": lines[2:]}.items():
        (root / f"{part}.txt").write_text("".join(chosen))
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    lists = [option for part in ("labeled", "unlabeled", "val") for option in (f"--data.{part}", f"{part}.txt")]
    return root, ["--data.name", "folder", "--data.root", str(root), *lists]


@pytest.fixture
def started(train, data, tmp_path, capsys, fast_options):
    """A run of two steps in tmp_path / "run": the root of its data, and the options that go on with it."""
    root, options = data
    run = tmp_path / "run"
    assert train(*options, *STEPS, "--output", run) == 0
    capsys.readouterr()
    return root, [*fast_options, *options, "--train.steps", 4, "--output", run, "--resume"]


def test_names_that_are_markup_and_maths(train, data, tmp_path, capsys):
    _, options = data
    run = tmp_path / "[red]run"
    assert train(*options, *STEPS, "--output", run) == 0
    said = capsys.readouterr().out
    assert f"everything is in {run}\n" in said and "could not be drawn" not in said
    assert {"summary.json", "predictions.png", "curves.png"} <= {path.name for path in run.iterdir()}
    assert "[/unk]" in (run / "config.yaml").read_text()


def test_a_picture_that_fails_costs_nothing_else(train, data, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise ValueError("no such\nfont")

    for name in ("save_predictions", "save_curves"):
        monkeypatch.setattr(f"maskmatch.training.finish.{name}", fails)
    assert train(*data[1], *STEPS, "--output", tmp_path / "run") == 0
    said = capsys.readouterr().out
    for name in ("predictions", "curves"):
        assert f"warning: {tmp_path}/run/{name}.png could not be drawn: no such font\n" in said
    assert json.loads((tmp_path / "run/summary.json").read_text())["best_miou"] > 0


def save_mask(path, mask, **options):
    Image.fromarray(mask).save(path, **options)


def read_mask(path):
    with Image.open(path) as mask:
        return np.array(mask)


def test_masks_that_were_drawn_anew_are_another_run(started, refusal):
    root, options = started
    mask = read_mask(root / "masks/1.png")
    mask[3, 5] = (mask[3, 5] + 1) % 4
    save_mask(root / "masks/1.png", mask)
    said = refusal(main, *options)
    assert said.startswith("error: data.labeled: expected the checkpoint's masks, got others in the same files")
    assert "--init_from" in said


def test_masks_whose_classes_were_exchanged(started, refusal):
    """The user has exported them again, with the classes in another order."""
    root, options = started
    for path in (root / "masks").iterdir():
        save_mask(path, np.array([1, 0, 2, 3], np.uint8)[read_mask(path)])
    assert "expected the checkpoint's masks" in refusal(main, *options)


def test_another_order_of_classes(started, refusal):
    root, options = started
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in (NAMES[1], NAMES[0], *NAMES[2:])))
    said = refusal(main, *options)
    assert "data.class_names: expected the checkpoint's order, with $x_{$ as class 1, got it as 0" in said


def test_what_changes_nothing_may_change(started, capsys):
    """Masks stored anew, other names for the same classes, the folder elsewhere."""
    root, options = started
    for path in (root / "masks").iterdir():
        mask = Image.fromarray(read_mask(path))
        mask.putpalette(bytes(range(256)) * 3)
        mask.save(path, compress_level=0)
    (root / "classes.txt").write_text("a\n$x_{$\nb\n_background_\n")
    moved = root.rename(root.with_name("elsewhere"))
    options = [str(moved) if option == str(root) else option for option in options]
    assert main(list(map(str, options))) == 0
    assert "warning: " not in capsys.readouterr().out.replace("warning, step", "")


def test_other_validation_masks_are_said(started, capsys):
    root, options = started
    save_mask(root / "masks/3.png", np.zeros((40, 48), np.uint8))
    assert main(list(map(str, options))) == 0
    assert "the masks of data.val are others than before: earlier figures are of those\n" in capsys.readouterr().out


def test_a_checkpoint_of_before_masks_were_kept(started, tmp_path):
    """It has no digest of them, nor the names."""
    root, options = started
    run = tmp_path / "run"
    state = run / "checkpoints/last/state.pt"
    content = torch.load(state, weights_only=True)
    del content["data"]["masks"], content["data"]["class_names"]
    torch.save(content, state)
    sums = run / "checkpoints/last/sha256"
    digest = hashlib.sha256(state.read_bytes()).hexdigest()
    sums.write_text(re.sub(r"\w+(?=  state\.pt)", digest, sums.read_text()))
    save_mask(root / "masks/1.png", np.ones((40, 48), np.uint8))
    assert main(list(map(str, options))) == 0
    assert "masks" in checkpoint_data(run)


def checkpoint_data(run):
    return torch.load(run / "checkpoints/last/state.pt", weights_only=True)["data"]


@pytest.mark.parametrize("part", ["labeled", "val"])
def test_nothing_labelled_ends_before_the_first_step(data, refusal, tmp_path, part):
    root, options = data
    for index in {"labeled": (0, 1), "val": (2, 3)}[part]:
        save_mask(root / f"masks/{index}.png", np.full((40, 48), 255, np.uint8))
    said = refusal(main, *options, "--output", tmp_path / "run")
    assert f"data.{part}: expected some pixels of a class" in said
    assert not (tmp_path / "run").exists()


def test_images_above_the_limit(data, train, refusal, tmp_path, monkeypatch, capsys):
    root, options = data
    monkeypatch.setattr("maskmatch.data.decoding.files.MANY_PIXELS", 1000)
    monkeypatch.setattr("maskmatch.data.decoding.files.most_pixels", lambda: 2000)
    generator = np.random.default_rng(1)
    for index in (2, 3):  # the latter in val alone
        Image.fromarray(generator.integers(0, 256, (50, 41, 3), np.uint8)).save(root / f"images/{index}.png")
        save_mask(root / f"masks/{index}.png", generator.integers(0, 4, (50, 41), np.uint8))
    (root / "unlabeled.txt").write_text("images/0.png\nimages/2.png\n")
    (root / "val.txt").write_text("images/1.png masks/1.png\nimages/3.png masks/3.png\n")
    limit = "expected an image of at most 2,000 pixels"
    assert limit in refusal(main, *options, "--output", tmp_path / "refused")
    assert train(*options, *STEPS, "--data.on_error", "skip", "--output", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert len(re.findall(f"warning: left out: {limit}.*images/[23].png", said)) == 2
    skipped = json.loads((tmp_path / "run/summary.json").read_text())["skipped_files"]
    assert [path.rpartition("/")[2] for path in skipped] == ["2.png", "3.png"]


def test_names_of_which_classes_txt_has_none_are_said(data, train, tmp_path, capsys):
    assert train(*data[1], *STEPS, "--data.class_names", "[a,b,c,d]", "--output", tmp_path / "run") == 0
    assert "warning: data.class_names: classes.txt has none of these names" in capsys.readouterr().out
