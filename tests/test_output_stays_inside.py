"""What is written stays in the output folder, whatever images, lists, links and classes are called."""

from __future__ import annotations

import io
import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from maskmatch.commands.evaluate import main as evaluate
from maskmatch.commands.export import main as export
from maskmatch.commands.predict import main as predict
from maskmatch.commands.report import main as report
from maskmatch.commands.split import main as split

PICTURES = {"labels": ".png", "overlays": ".jpg", "confidence": ".png", "pseudo_labels": ".png"}
MINE = "not to be written to"


@pytest.fixture
def world(photos, tmp_path, monkeypatch):
    """A folder to work in, `world/in`, beside which lie `world/out` and what must stay as it is."""
    place = tmp_path / "world"
    for name in ("in/deep/a", "beside/b", "beside/folder/c"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "images/5.png", place / f"{name}.png")
    (place / "mine.txt").write_text(MINE)
    monkeypatch.chdir(place / "in")
    return place


def outside(folder: Path, out: Path) -> dict[str, tuple[int, bytes | None]]:
    """Everything below a folder but `out`, links as links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_relative_to(out):
            found[str(path)] = path.lstat().st_mode, path.read_bytes() if path.is_file() else None
    return found


def video(path: Path) -> None:
    plain = path.with_name("plain.avi")
    writer = cv2.VideoWriter(str(plain), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for index in range(2):
        writer.write(np.full((48, 64, 3), 60 * index, np.uint8))
    writer.release()
    plain.rename(path)


def copy(world: Path, name: str) -> None:
    shutil.copy(world / "beside/b.png", world / "in" / name)


PREPARED = {
    "link.png": lambda world: os.symlink(world / "beside/b.png", world / "in/link.png"),
    "linked": lambda world: os.symlink("../beside", world / "in/linked"),
    "linked/folder/../b.png": lambda world: os.symlink("../beside", world / "in/linked"),
    "..png": lambda world: copy(world, "..png"),
    "...png": lambda world: copy(world, "...png"),
    "....png": lambda world: copy(world, "....png"),
    "...avi": lambda world: video(world / "in/...avi"),
    "..avi": lambda world: video(world / "in/..avi"),
    "deep/...avi": lambda world: video(world / "in/deep/...avi"),
    "a\\..\\..\\b.png": lambda world: copy(world, "a\\..\\..\\b.png"),
    "~.png": lambda world: copy(world, "~.png"),
}
INPUTS = ["../beside/b.png", "..", "../beside", ".", "../*/*.png", "{deep,../beside}/*.png", "deep/../../beside/b.png"]


@pytest.mark.parametrize("name", [*INPUTS, "ABSOLUTE/beside/b.png", "ABSOLUTE/beside", *PREPARED])
@pytest.mark.parametrize("listed", [False, True], ids=["named", "listed"])
def test_predict(run, world, name, listed, monkeypatch):
    if name in PREPARED:
        PREPARED[name](world)
    before = outside(world, world / "out")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{name.replace('ABSOLUTE', str(world))}\n"))
    given = "-" if listed else name.replace("ABSOLUTE", str(world))
    assert predict([str(run), given, "--output", "../out", "--pseudo_labels", "--threshold", "0"]) == 0
    assert outside(world, world / "out") == before
    written = {path.relative_to(world / "out") for path in (world / "out").rglob("*") if path.is_file()}
    settings = {Path("predict.json"), Path("pseudo_labels.txt")}
    assert {path.parts[0] for path in written - settings} == set(PICTURES)
    names = [{str(path.relative_to(kind))[:-4] for path in written if path.parts[0] == kind} for kind in PICTURES]
    assert names[0] and names.count(names[0]) == len(PICTURES)  # one of each kind, of each image


def planted(*places: Path) -> Path:
    """Links of a stranger to a file of ours."""
    mine = places[0].parent / "mine.txt"
    mine.write_text(MINE)
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(mine)
    return mine


def test_predict_does_not_write_through_links(run, photos, tmp_path):
    out = tmp_path / "out"
    mine = planted(tmp_path / "x", out / ".predict.json.tmp", out / "labels/.0.png.tmp", out / "overlays/.0.jpg.tmp")
    (out / "confidence").mkdir()
    (out / "confidence/0.png").symlink_to(tmp_path / "new")
    assert predict([str(run), str(photos / "images/0.png"), "--output", str(out)]) == 0
    assert mine.read_text() == MINE and not (tmp_path / "new").exists()
    assert predict([str(run), str(photos / "images/0.png"), "--output", str(out), "--overwrite"]) == 0
    assert mine.read_text() == MINE
    assert not [path for path in out.rglob("*") if path.is_symlink()]


def test_a_strangers_run_does_not_write_through_links(run, tmp_path, monkeypatch):
    own = shutil.copytree(run, tmp_path / "run", symlinks=True)
    result = "evaluation/val-whole-step_2-teacher"
    names = [".report.html.tmp", f"{result}-confusion.png", f"evaluation/.{Path(result).name}.json.tmp"]
    mine = planted(tmp_path / "x", *(own / name for name in [*names, ".model.tmp.onnx"]))
    assert evaluate([str(own)]) == 0
    assert report([str(own)]) == 0
    monkeypatch.setattr("maskmatch.inference.deployment.write", lambda model, kind, path: path.write_text("model"))
    monkeypatch.setattr("maskmatch.inference.deployment.check", lambda *_: 0.0)
    assert export([str(own), "--format", "onnx"]) == 0
    assert mine.read_text() == MINE
    assert (own / "report.html").is_file() and (own / "model.onnx").read_text() == "model"
    assert (own / f"{result}-confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_list_that_names_what_lies_outside(run, photos, world, capsys):
    """It is read; nothing is written by its names."""
    root = shutil.copytree(photos, world / "data")
    shutil.move(root / "images", world / "elsewhere")
    lines = [f"../elsewhere/{index}.png ../data/masks/{index}.png\n" for index in range(3)]
    lines += [f"{world}/elsewhere/{index}.png masks/{index}.png\n" for index in range(3, 6)]
    (root / "odd.txt").write_text("".join(lines))
    before = outside(world, world / "out")
    assert (
        evaluate([str(run), "--data.root", str(root), "--data.val", str(root / "odd.txt"), "--output", "../out"]) == 0
    )
    assert outside(world, world / "out") == before
    data = ["--data.name", "folder", "--data.root", str(root), "--data.num_classes", "3"]
    assert split([*data, "--data.labeled", str(root / "odd.txt"), "--labeled", "3", "--output", "../out/split"]) == 0
    assert outside(world, world / "out") == before
    assert {path.name for path in (world / "out/split").iterdir()} == {"labeled.txt", "unlabeled.txt"}


@pytest.mark.parametrize("labeled", ["../../3", "/3", "..", "1/../../8"])
def test_the_name_of_a_split_is_no_path(photos, world, refusal, labeled):
    before = outside(world, world / "out")
    root = shutil.copytree(photos, world / "out/data")
    options = ["--data.name", "folder", "--data.root", root, "--data.num_classes", 3, "--labeled", labeled]
    assert "labeled" in refusal(split, *options)
    assert outside(world, world / "out") == before and not (root / "splits").exists()


class Page(HTMLParser):
    """The tags of a page, the names of their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.values: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values |= {value for _, value in attrs if value}

    def handle_data(self, data):
        self.text += data


CLASSES = ["<script>alert(1)</script>", "\"onload='alert(2)'", "</td><img src=x onerror=alert(3)>"]
IMAGE = "a\"onerror='alert(4)'<b>.png"


def test_a_report_shows_names_as_they_are(run, photos, tmp_path):
    """The page has the tags of any other page; names of classes, images, folders and records are text in it."""
    plain = shutil.copytree(run, tmp_path / "plain", symlinks=True)
    odd = shutil.copytree(run, tmp_path / "<script>run", symlinks=True)
    root = shutil.copytree(photos, tmp_path / "<i>photos")
    for folder in ("images", "masks"):
        (root / folder / "0.png").rename(root / folder / IMAGE)
    lines = (root / "all.txt").read_text().replace(" ", "\t").replace("0.png", IMAGE)
    (root / "all.txt").write_text(lines)
    config = yaml.safe_load((odd / "config.yaml").read_text())
    config["data"] |= {"class_names": CLASSES, "root": str(root)}
    (odd / "config.yaml").write_text(yaml.safe_dump(config))
    for folder, text in ((plain, "text"), (odd, "<script>alert(5)</script>")):
        (folder / "environment.json").write_text(json.dumps({text: {text: text}}))
        (folder / "summary.json").write_text(json.dumps({text: text}))
        record = {"step": 1, "loss": 1.0, "miou_teacher": 0.5, "iou_teacher": [0.1, 0.2, 0.3]}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record | {"step": n}) + "\n" for n in (1, 2)))
    pages = []
    for folder in (plain, odd):
        assert report([str(folder)]) == 0
        pages.append(Page((folder / "report.html").read_text()))
    assert sorted(pages[0].tags) == sorted(pages[1].tags)
    assert pages[0].attributes == pages[1].attributes
    assert not [name for name in pages[1].attributes if name.startswith("on")]
    for text in (*CLASSES, IMAGE.removesuffix(".png"), "<script>alert(5)</script>", "<script>run", "<i>photos"):
        assert text in pages[1].text, text
    assert any(IMAGE.removesuffix(".png") in value for value in pages[1].values)  # the alternative of a picture
