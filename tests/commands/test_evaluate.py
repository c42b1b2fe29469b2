"""The numbers of `maskmatch.evaluate` are those of torchmetrics on the same predictions."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from maskmatch import load
from maskmatch.commands.evaluate import main
from maskmatch.config import DataConfig
from maskmatch.inference.modes import Inference
from maskmatch.run_files.versions import write_environment


def evaluate(run, output, *options):
    assert main([str(run), "--output", str(output), *options]) == 0
    (file,) = output.glob("*.json")
    return json.loads(file.read_text())


def truth(root, index):
    return np.array(Image.open(root / f"masks/{index}.png"))


@pytest.mark.parametrize(
    ("options", "how", "images"),
    [
        ([], Inference(), range(6)),
        (["--split", "test", "--checkpoint", "last", "--weights", "student"], Inference(), range(4, 6)),
        (["--mode", "slide", "--window", "32,32"], Inference("slide", (32, 32)), range(6)),
        (
            ["--mode", "resize", "--scales", "0.5,1", "--flip"],
            Inference("resize", (64, 64), (0.5, 1.0), True),
            range(6),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_miou_is_that_of_torchmetrics(run, photos, tmp_path, options, how, images):
    found = evaluate(run, tmp_path, *options)
    chosen = {"checkpoint": "last", "weights": "student"} if "last" in options else {}
    model, jaccard = load(run, **chosen), MulticlassJaccardIndex(3, ignore_index=255)
    for index in images:
        labels = model.predict(Image.open(photos / f"images/{index}.png"), how).labels
        jaccard.update(torch.tensor(labels).long(), torch.tensor(truth(photos, index)).long())
    assert found["miou"] == pytest.approx(jaccard.compute().item(), abs=1e-6)
    assert found["settings"]["images"] == len(images)
    known = sum(int((truth(photos, index) != 255).sum()) for index in images)
    assert sum(row["pixels"] for row in found["classes"]) == np.sum(found["confusion"]) == known
    assert found["coverage"][0]["coverage"] == 1 and found["coverage"][0]["accuracy"] == found["pixel_accuracy"]
    assert 0 <= found["mean_boundary_iou"] <= 1


def test_files_and_table(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    assert main([str(copy)]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("field", "meadow", "town", "boundary IoU", "confidence at least", "0.95"))
    written = sorted(path.name for path in (copy / "evaluation").iterdir())
    assert written == ["val-whole-step_2-teacher-confusion.png", "val-whole-step_2-teacher.json"]
    with Image.open(copy / "evaluation" / written[0]) as picture:
        assert min(picture.size) > 200
    first = (copy / "evaluation" / written[1]).read_text()
    assert main([str(copy)]) == 0  # the same again
    assert (copy / "evaluation" / written[1]).read_text() == first


def test_another_measurement_is_not_overwritten(run, tmp_path, capsys):
    found = evaluate(run, tmp_path)
    assert main([str(run), "--output", str(tmp_path), "--data.val", "two.txt"]) == 2
    assert "of the same measurement" in capsys.readouterr().err
    assert evaluate(run, tmp_path) == found


def drop_mask(root):
    (root / "masks/5.png").unlink()


def cut_image(root):
    path = root / "images/5.png"
    path.write_bytes(path.read_bytes()[:-30])


def hole_in_list(root):
    (root / "all.txt").write_text("images/0.png masks/0.png\nimages/9.png masks/9.png\n")


def other_size(root):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "masks/5.png")


def other_class(root):
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(root / "masks/5.png")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_mask, "masks/5.png"),
        (cut_image, "images/5.png"),
        (hole_in_list, "images/9.png"),
        (other_size, "masks/5.png"),
        (other_class, "got 7"),
    ],
)
def test_wrong_data(run, photos, tmp_path, refusal, damage, said):
    root = shutil.copytree(photos, tmp_path / "photos")
    damage(root)
    assert said in refusal(main, run, "--data.root", root, "--output", tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split", "train"], "split: expected one of val, test, labeled, unlabeled, got train"),
        (["--mode", "half"], "mode: expected one of whole, slide, resize, got half"),
        (["--scales", "0"], "scales"),
        (["--window", "5"], "window"),
        (["--data.root", "/missing"], "/missing"),
        (["--split", "test", "--data.test", "missing.txt"], "missing.txt"),
        (["--checkpoint", "step_9"], "step_9"),
        (["--wieghts", "student"], "did you mean --weights?"),
        (["--output", "/proc/evaluation"], "/proc/evaluation"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(run, refusal, options, said):
    assert said in refusal(main, run, *options)


def test_no_run(refusal, tmp_path):
    assert f"expected the folder of a run, found no {tmp_path / 'config.yaml'}" in refusal(main, tmp_path)


def test_other_lists_need_not_be_there(run, photos, tmp_path):
    """Another folder than in training, with images to measure and nothing else."""
    root = shutil.copytree(photos, tmp_path / "photos")
    (root / "all.txt").rename(root / "held_out.txt")
    listed = evaluate(run, tmp_path / "list", "--data.root", str(root), "--data.val", "held_out.txt")
    pattern = evaluate(run, tmp_path / "pattern", "--data.root", str(root), "--data.val", "images/*")
    assert listed["confusion"] == pattern["confusion"] == evaluate(run, tmp_path / "run")["confusion"]


@pytest.mark.parametrize("options", [{"val": "all.txt"}, {"val": "lists/mine.txt"}, {"split": "mine"}])
def test_from_another_folder(write_run, photos, tmp_path, monkeypatch, options):
    """Relative paths are those of the training: its root, its lists in the folder that it was started in, its split."""
    (tmp_path / "project/lists").mkdir(parents=True)
    (tmp_path / "project/splits/mine").mkdir(parents=True)
    shutil.copytree(photos, tmp_path / "project/photos")
    for name in ("lists/mine.txt", "splits/mine/labeled.txt", "splits/mine/val.txt"):
        shutil.copy(photos / "two.txt", tmp_path / "project" / name)
    monkeypatch.chdir(tmp_path / "project")
    run = write_run(Path("runs/run"), DataConfig(name="folder", root="photos", **options))
    write_environment(run)
    here = evaluate(run, tmp_path / "here")
    for place in ("elsewhere", "other/photos"):  # the latter with a folder of the same name
        (tmp_path / place).mkdir(parents=True)
    for place in ("elsewhere", "other"):
        monkeypatch.chdir(tmp_path / place)
        found = evaluate(tmp_path / "project/runs/run", tmp_path / f"out-{place}")
        assert found["confusion"] == here["confusion"]
        assert found["settings"]["data"] == here["settings"]["data"] == "photos"
        assert found["settings"]["images"] == (6 if options.get("val") == "all.txt" else 2)
    shutil.rmtree(tmp_path / "other/photos")
    (tmp_path / "project/photos").rename(tmp_path / "other/photos")  # gone there, but of the same name here
    if "val" in options:
        assert evaluate(tmp_path / "project/runs/run", tmp_path / "moved", "--data.val", "all.txt")["confusion"]


def test_a_split_that_is_gone(write_run, photos, tmp_path, refusal):
    run = write_run(tmp_path / "run", DataConfig(name="folder", root=str(photos), split="gone"))
    assert evaluate(run, tmp_path / "listed", "--data.val", "all.txt")["settings"]["images"] == 6
    assert "gone" in refusal(main, run, "--split", "test")


@pytest.mark.slow
def test_processes_share_the_images(run, tmp_path):
    """Six images among four processes: nothing is counted twice, and one of them writes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    command = [*torchrun, "-m", "maskmatch.evaluate", str(run), "--output", str(tmp_path / "four")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written:") == 1
    (file,) = (tmp_path / "four").glob("*.json")
    assert json.loads(file.read_text()) == evaluate(run, tmp_path / "one")
