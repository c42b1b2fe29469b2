"""Names and paths that look like markup, like an emoji or like maths stand in every command's output as they are."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from maskmatch.commands.check_data import main as check_data
from maskmatch.commands.evaluate import main as evaluate
from maskmatch.commands.predict import main as predict
from maskmatch.commands.report import main as report
from maskmatch.common.terminal import passing_progress, plain_console

NAMES = ["[/unk]", "soil [dry] :car:", "$x_{$"]


@pytest.fixture
def tricky_photos(photos, tmp_path):
    """The photos in a folder whose name rich would take for the end of a tag, with classes.txt."""
    root = shutil.copytree(photos, tmp_path / "da[/old]ta :car:")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return root


@pytest.fixture
def tricky_run(run, tricky_photos, tmp_path):
    copy = shutil.copytree(run, tmp_path / "[/run]", symlinks=True)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"] |= {"class_names": NAMES, "root": str(tricky_photos)}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    return copy


@pytest.mark.parametrize("terminal", [False, True])
def test_check_data(tricky_photos, tmp_path, capsys, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    options = ["--data.name", "folder", "--data.root", str(tricky_photos), "--output", str(tmp_path / "[b]out")]
    assert check_data(options) == 0
    said = capsys.readouterr().out
    assert "0 errors" in said and f"{tmp_path}/[b]out/classes.png" in said
    for name in NAMES:
        assert name in said
    title = re.sub(r"\x1b\[[\d;]*m|\s", "", said.partition("┏")[0])
    assert title.endswith("/da[/old]ta:car:")
    assert (tmp_path / "[b]out/classes.png").exists()


@pytest.mark.parametrize("terminal", [False, True])
def test_evaluate(tricky_run, capsys, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    assert evaluate([str(tricky_run)]) == 0
    said = capsys.readouterr().out
    for name in NAMES:
        assert name in said
    (file,) = (tricky_run / "evaluation").glob("*.json")
    assert [row["name"] for row in json.loads(file.read_text())["classes"]] == NAMES
    assert (tricky_run / f"evaluation/{file.stem}-confusion.png").exists()


def test_a_checkpoint_with_brackets_in_its_name(tricky_run, tmp_path, capsys):
    weights = shutil.copy(tricky_run / "checkpoints/best/teacher.safetensors", tmp_path / "[x] a[b].safetensors")
    assert evaluate([str(tricky_run), "--checkpoint", str(weights), "--output", str(tmp_path / "out")]) == 0
    assert "teacher of [x] a[b].safetensors" in capsys.readouterr().out


def test_report_and_predict_on_a_terminal(tricky_run, tricky_photos, tmp_path, monkeypatch):
    """Whose progress bars name the run."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert report([str(tricky_run)]) == 0
    page = (tricky_run / "report.html").read_text()
    assert "[/unk]" in page and "soil [dry] :car:" in page
    assert predict([str(tricky_run), str(tricky_photos / "images"), "--output", str(tmp_path / "[i]masks")]) == 0
    assert len(list((tmp_path / "[i]masks/labels").iterdir())) == 6


def test_evaluate_of_masks_that_ignore_their_objects(run, photos, tmp_path, capsys):
    """It is a warning there: all images may be without an object."""
    root = shutil.copytree(photos, tmp_path / "photos")
    for path in (root / "masks").iterdir():
        with Image.open(path) as mask:
            stored = np.array(mask)
        Image.fromarray(np.where(stored == 1, 255, 0).astype(np.uint8)).save(path)
    assert evaluate([str(run), "--data.root", str(root), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert (
        said.startswith("warning: mask values: expected 0..2, got only 0 and 255 in all masks")
        and said.count("\n") == 1
    )


def test_evaluate_where_nothing_is_labelled(run, photos, tmp_path, refusal):
    root = shutil.copytree(photos, tmp_path / "photos")
    for path in (root / "masks").iterdir():
        with Image.open(path) as mask:
            Image.fromarray(np.full(mask.size[::-1], 255, np.uint8)).save(path)
    said = refusal(evaluate, run, "--split", "test", "--data.root", root, "--output", tmp_path / "out")
    assert said.startswith("error: data.test: expected some pixels of a class")


def test_evaluate_with_the_classes_in_another_order(run, photos, tmp_path, refusal):
    root = shutil.copytree(photos, tmp_path / "photos")
    (root / "classes.txt").write_text("town\nmeadow\nfield\n")
    said = refusal(evaluate, run, "--data.root", root, "--output", tmp_path / "out")
    assert "expected the order of classes.txt, whose class 2 is field, got field as class 0" in said
    (root / "classes.txt").write_text("Field\nmeadow\ntown\n")
    assert evaluate([str(run), "--data.root", str(root), "--output", str(tmp_path / "out")]) == 0


def test_a_confusion_matrix_that_cannot_be_drawn(run, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise ValueError("no font")

    monkeypatch.setattr("maskmatch.metrics.save_confusion", fails)
    assert evaluate([str(run), "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err.count("confusion.png could not be drawn: no font\n") == 1
    (file,) = tmp_path.glob("*.json")
    assert said.out.endswith(f"written: {file}\n")


@pytest.mark.parametrize(
    "text", ["[/unk]", "[bold]x[/bold]", ":smile:", "[link=https://x]y[/link]", "\\[a]", "[@click=x]"]
)
def test_a_console_takes_no_text_for_markup(text, capsys):
    plain_console(width=80).print(text)
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize("text", ["[/unk]", "[red]x", ":smile:"])
def test_a_progress_bar_takes_no_text_for_markup(text, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with passing_progress() as progress:
        progress.add_task(text, total=2)
    assert text in capsys.readouterr().err
