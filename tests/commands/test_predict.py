"""Masks for whatever a user points at: what is written, what is skipped, and what is left alone."""

import io
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from maskmatch import load
from maskmatch.commands.predict import main
from maskmatch.config import DataConfig


@pytest.fixture(scope="module")
def model(run):
    return load(run)


@pytest.fixture
def images(photos, tmp_path):
    """A folder of four images in two folders."""
    folder = tmp_path / "in"
    for index, name in enumerate(["a.png", "b.png", "deep/a.png", "deep/er/c.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / f"images/{index}.png", folder / name)
    return folder


NAMES = ["a", "b", "deep/a", "deep/er/c"]


def predict(run, *options):
    return main([str(run), *map(str, options)])


def names(folder):
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*") if path.is_file())


def read(path):
    with Image.open(path) as picture:
        return np.array(picture)


def test_everything_of_a_folder(run, model, images, tmp_path):
    out = tmp_path / "out"
    assert predict(run, images, "--output", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["confidence", "labels", "overlays", "predict.json"]
    for name in NAMES:
        with Image.open(images / f"{name}.png") as image:
            expected, pixels = model.predict(image), np.array(image)
        with Image.open(out / f"labels/{name}.png") as mask:
            assert mask.mode == "P" and mask.getpalette()[:9] == [255, 0, 0, 0, 255, 0, 0, 0, 255]
            labels = np.array(mask)
        assert (labels == expected.labels).mean() > 0.999
        assert np.abs(read(out / f"confidence/{name}.png") - 255 * expected.confidence).max() < 1
        overlay = read(out / f"overlays/{name}.jpg").astype(float)
        assert np.abs(overlay - (pixels / 2 + model.palette[labels] / 2)).mean() < 20  # JPEG
    assert all(names(out / kind) == NAMES for kind in ("labels", "overlays", "confidence"))


def test_files_patterns_and_a_list_on_stdin(run, images, tmp_path, monkeypatch):
    assert predict(run, images / "a.png", images / "b.png", "--output", tmp_path / "files") == 0
    assert names(tmp_path / "files/labels") == ["a", "b"]
    assert predict(run, images / "**/*.png", "--output", tmp_path / "pattern") == 0
    assert names(tmp_path / "pattern/labels") == NAMES
    assert predict(run, f"{images}/.//{{deep,no}}/**/[b-c].{{jpg,png}}", "--output", tmp_path / "braces") == 0
    assert names(tmp_path / "braces/labels") == ["deep/er/c"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{images}/b.png\n\n  {images}/deep/er/c.png  \n"))
    assert predict(run, "-", "--output", tmp_path / "stdin") == 0
    assert names(tmp_path / "stdin/labels") == ["b", "c"]


def test_names_that_differ_in_their_suffix_alone(run, images, tmp_path):
    with Image.open(images / "a.png") as image:
        image.save(images / "a.jpg")
    assert predict(run, images / "a.png", images / "a.jpg", "--output", tmp_path / "out") == 0
    assert names(tmp_path / "out/overlays") == ["a.jpg", "a.png"]


def test_video(run, model, photos, tmp_path):
    frames = [np.full((48, 64, 3), 60 * index, np.uint8) for index in range(4)]
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for frame in frames:
        writer.write(frame)
    writer.release()
    assert predict(run, tmp_path / "clip.avi", "--output", tmp_path / "out") == 0
    assert names(tmp_path / "out/labels") == [f"clip/{index:06d}" for index in range(4)]
    labels = model.predict(frames[2]).labels
    assert (read(tmp_path / "out/labels/clip/000002.png") == labels).mean() > 0.95  # lossy


def test_a_video_whose_name_is_no_utf_8(run, tmp_path):
    """In a process of its own, as OpenCV would end it."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for index in range(3):
        writer.write(np.full((48, 64, 3), 60 * index, np.uint8))
    writer.release()
    clip = (tmp_path / "clip.avi").rename(tmp_path / "stra\udcdfe.avi")
    command = [sys.executable, "-m", "maskmatch.predict", run, clip, "--output", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0 and b"3 images written" in done.stdout, done.stderr
    assert names(tmp_path / "out/labels") == [f"stra\udcdfe/{index:06d}" for index in range(3)]


def test_damaged_files_are_skipped_and_named(run, images, tmp_path, capfd):
    (images / "a.png").write_bytes((images / "a.png").read_bytes()[:60])
    (images / "no.jpg").write_text("no image")
    (images / "no.mp4").write_text("no video")
    assert predict(run, images, images / "gone.png", images / "*.tif", "--output", tmp_path / "out") == 0
    said = capfd.readouterr()
    assert "3 images written" in said.out and "5 skipped" in said.out
    assert len([line for line in said.err.splitlines() if line.startswith("skipped: expected")]) == 5
    assert all(name in said.err for name in ("in/a.png", "no.jpg", "no.mp4", "gone.png", "*.tif"))
    assert names(tmp_path / "out/labels") == NAMES[1:]


def test_nothing_written_is_an_error(run, tmp_path, capsys):
    assert predict(run, tmp_path / "gone.png", "--output", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "gone.png" in said.err and "0 images written" in said.out


def test_a_folder_without_images(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(run, tmp_path / "empty", "--output", tmp_path / "out") == 2
    assert f"expected images or videos, found none in {tmp_path / 'empty'}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(run, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(run, images, "--output", out) == 0
    (out / "labels/b.png").unlink()  # as if stopped before it
    (out / "labels/a.png").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.name != "predict.json"}
    capsys.readouterr()
    assert predict(run, images, "--output", out) == 0
    assert "1 image written" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "labels/b.png").exists()
    assert predict(run, images, "--output", out) == 0  # all there
    assert predict(run, images, "--output", out, "--overwrite") == 0
    assert read(out / "labels/a.png").shape == (40, 50)


def test_the_output_is_no_input(run, images):
    for _ in range(2):
        assert predict(run, images, "--output", images) == 0
        assert names(images / "labels") == NAMES


def test_two_networks_are_not_mixed(run, images, tmp_path, capsys):
    assert predict(run, images, "--output", tmp_path / "out") == 0
    assert predict(run, images, "--output", tmp_path / "out", "--weights", "student") == 2
    error = capsys.readouterr().err
    assert "holds predictions with weights teacher, not student" in error and len(error.splitlines()) == 1


def test_pseudo_labels_are_training_masks(run, model, images, tmp_path):
    out = tmp_path / "out"
    sure = model.predict(Image.open(images / "b.png")).confidence
    threshold = float(np.median(sure))
    assert predict(run, images, "--output", out, "--pseudo_labels", "--threshold", threshold) == 0
    labels, mask = read(out / "labels/b.png"), read(out / "pseudo_labels/b.png")
    assert 0.4 < (mask == 255).mean() < 0.6
    assert (mask[sure > threshold + 1e-4] == labels[sure > threshold + 1e-4]).all()
    assert (mask[sure < threshold - 1e-4] == 255).all()

    from maskmatch.config import DataConfig
    from maskmatch.data import check_dataset, load_dataset

    lists = dict.fromkeys(("labeled", "unlabeled", "val"), str(out / "pseudo_labels.txt"))
    dataset = load_dataset(DataConfig("folder", str(tmp_path), num_classes=3, **lists), supervised_only=False)
    check_dataset(dataset, supervised_only=False)
    assert len(dataset.labeled) == 4


def test_batches_are_of_one_size(run, photos, tmp_path, monkeypatch):
    """Six images of four sizes: those that follow each other in one size share a forward."""
    from maskmatch.inference.trained_model import TrainedModel

    sizes, predict_one = [], TrainedModel.predict
    monkeypatch.setattr(
        TrainedModel, "predict", lambda self, image, how: sizes.append(len(image)) or predict_one(self, image, how)
    )
    assert predict(run, photos / "images", "--output", tmp_path / "out") == 0
    assert sizes == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "required: output"),
        (["--output", "/proc/out"], "/proc/out"),
        (["--output", "OUT", "--threshold", "2"], "threshold must be a number from 0 to 1, got 2.0"),
        (["--output", "OUT", "--overwite"], "did you mean --overwrite?"),
        (["--output", "OUT", "--checkpoint", "gone"], "found no gone"),
        (["--output", "OUT", "--mode", "half"], "mode"),
        (["IN/deep/a.png", "--output", "OUT"], "expected images of different names"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(run, images, tmp_path, capsys, options, said):
    options = [option.replace("OUT", str(tmp_path / "out")).replace("IN", str(images)) for option in options]
    try:
        code = predict(run, images / "a.png", *options)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.strip()
    assert code == 2 and said in error and len(error.splitlines()) == 1, error
    assert not (tmp_path / "out").exists()


def test_settings_are_kept(run, images, tmp_path):
    assert predict(run, images, "--output", tmp_path / "out") == 0
    settings = json.loads((tmp_path / "out/predict.json").read_text())
    assert settings["weights"] == "teacher" and settings["checkpoint"].endswith("step_2")


def test_next_names_images_that_would_help(write_run, photos, images, tmp_path, capsys):
    """Of the run's unlabelled ones, or of those given; the same twice, and nothing but next.json is written."""
    (tmp_path / "labels.txt").write_text((photos / "two.txt").read_text())
    lists = {"labeled": str(tmp_path / "labels.txt"), "unlabeled": "all.txt", "val": "all.txt"}
    run = write_run(tmp_path / "run", DataConfig(name="folder", root=str(photos), **lists))
    said = []
    for options in (["--next", "3"], ["--next", "3", "--output", tmp_path / "out"]):
        assert predict(run, *options) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) == 3
    record = json.loads((tmp_path / "out/next.json").read_text())
    assert names(tmp_path / "out") == ["next"]
    for line, one in zip(said[0].splitlines(), record, strict=True):
        path, reason = line.split("\t")
        assert path == one["image"] and path.startswith(str(photos / "images")) and path[-5] in "0123"  # no masks yet
        assert reason.startswith(f"{one['doubt']:.1%} in doubt, most about ")
        assert sum(one["doubt_by_class"].values()) == pytest.approx(one["doubt"])
    scores = [one["doubt"] * one["distance"] for one in record]
    assert scores == sorted(scores, reverse=True)

    assert predict(run, "--next", "9", images) == 0
    named = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(named) == sorted(str(images / f"{name}.png") for name in NAMES)
    assert predict(run, "--next", "3", "--output", tmp_path / "out") == 2
    assert "next.json is there already" in capsys.readouterr().err


def test_next_without_the_data_of_the_run(write_run, images, tmp_path, capsys):
    run = write_run(tmp_path / "run", DataConfig(name="folder", root=str(tmp_path / "gone")))
    assert predict(run, "--next", "2", images) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2 and "not compared with those that have masks" in said.err
    assert predict(run, "--next", "2") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--next", "0"], "next must be at least 1, got 0"),
        (["--next", "2", "--flip"], "leave --mode, --scales and --flip out"),
        (["--output", "x"], "images: expected files, folders, patterns or videos, got none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_of_next(run, refusal, options, said):
    assert said in refusal(main, run, *options)
