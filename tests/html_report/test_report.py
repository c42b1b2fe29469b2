"""`python -m maskmatch.report` as one types it: what the page says, and what it never does."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

import maskmatch
from maskmatch.commands.evaluate import main as evaluate
from maskmatch.commands.report import main
from maskmatch.config import DataConfig
from maskmatch.html_report.examined import best_and_worst

VOID = {"meta", "link", "img", "input", "br"}
NAN = float("nan")


class Page(HTMLParser):
    """A page by its elements: attributes by tag, texts by tag, and whether every element is closed in order."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if text.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(text.split())))

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(text for tag, text in self.texts if tag not in ("style", "script"))

    @property
    def sections(self):
        return [attributes["id"] for attributes in self.of("section")]


def report(*options):
    """Write a page in this process; returns it."""
    assert main(list(map(str, options))) == 0
    runs = [option for option in options if not str(option).startswith("-")]
    output = options[options.index("--output") + 1] if "--output" in options else runs[0] / "report.html"
    return Page(output)


def change_config(run, **changed):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for name, value in changed.items():
        section, option = name.split("__")
        config[section][option] = value
    path.write_text(yaml.safe_dump(config))


def test_page(recorded_run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "maskmatch", "report", str(recorded_run)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"written: {recorded_run / 'report.html'}") and not done.stderr
    page = Page(recorded_run / "report.html")
    assert page.sections == ["results", "curves", "classes", "images", "speed", "configuration", "environment"]
    assert all(f'href="#{name}"' in page.source for name in page.sections[1:])
    assert len(page.of("h1")) == 1 and all(image["alt"] for image in page.of("img"))
    for name in ("field", "meadow", "town", "mIoU on val", "Learning rate", "data wait", "12.5"):
        assert name in page.text, name
    # six images, of which four are the best and two the worst, each with prediction, truth and errors
    assert len(page.of("img")) == 6 * 4 and len(page.of("input")) == 6 + 3
    assert evaluate([str(recorded_run), "--output", str(tmp_path / "evaluation")]) == 0
    (file,) = (tmp_path / "evaluation").glob("*.json")
    measured = json.loads(file.read_text())
    assert f"{100 * measured['miou']:.1f} ± {100 * measured['miou_error']:.1f} %" in page.text
    for value in (measured["mean_boundary_iou"], *(row["iou"] for row in measured["classes"])):
        assert f"{100 * value:.1f} %" in page.text


def test_nothing_is_fetched(recorded_run):
    page = report(recorded_run)
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.findall(r"@import|url\((?!\"?data:)|https?://(?!www\.w3\.org/2000/svg)", page.source)
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy


def test_markup_in_names_is_text(write_run, photos, record, tmp_path):
    names = ("<b>", '"><script>alert(1)</script>', "a & {{ b }}")
    lists = dict.fromkeys(("labeled", "unlabeled", "val"), "all.txt")
    folder = tmp_path / '<i onclick="x">'
    record(write_run(folder, DataConfig(name="folder", root=str(photos), **lists), names))
    page = report(folder)
    assert not {"b", "i"} & {tag for tag, _ in page.elements} and len(page.of("script")) == 1
    assert all(name in page.text for name in (*names, folder.name))


def test_several_runs(recorded_run, tmp_path):
    other = shutil.copytree(recorded_run, tmp_path / "other", symlinks=True)
    change_config(other, method__threshold=0.5)
    page = report(recorded_run, other, "--checkpoint", "last", "--weights", "student")
    assert not (other / "report.html").exists()
    assert "2 runs side by side" in page.text and "student of step_4" in page.text
    rows = re.findall(
        r"<code>method.threshold</code></th><td><code>(.*?)</code></td><td><code>(.*?)</code>", page.source
    )
    assert rows == [("0.95", "0.5")] and page.source.count("<code>method.lambda_u</code>") == 0
    charts = re.findall(
        r'aria-label="(mIoU on val: teacher|Loss: total) over the steps. run: .*?; other: ', page.source
    )
    assert charts == ["mIoU on val: teacher", "Loss: total"]
    assert page.source.count('type="radio"') == 4  # two predictions, truth, errors
    assert "cannot be compared" not in page.text


def test_runs_of_other_classes_and_images(recorded_run, write_run, photos, record, tmp_path):
    lists = dict.fromkeys(("labeled", "unlabeled"), "all.txt") | {"val": "two.txt"}
    data = DataConfig(name="folder", root=str(photos), **lists)
    other = record(write_run(tmp_path / "other", data, ("one", "two", "three")))
    page = report(recorded_run, other, "--output", tmp_path / "page.html")
    assert len([table for table in page.of("table") if table.get("class") == "classes"]) == 2
    assert all(name in page.text for name in ("meadow", "three", "cannot be compared directly"))
    assert page.source.count('type="radio"') == 3


def rewritten(run, change):
    """Pass each record of a run through `change`."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def interrupted(run):
    (run / "summary.json").unlink()
    path = run / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    change_config(run, train__steps=800)
    return "not finished: step 3 of 800"


def not_a_number(run):
    rewritten(run, lambda line: line | {"loss": NAN if line["step"] > 2 else None, "skipped_steps": 7})
    return "7 steps were skipped"


def every_loss_not_a_number(run):
    rewritten(run, lambda line: line | dict.fromkeys(("loss", "loss_x", "loss_u", "lr"), NAN))
    return "mIoU on val"


def no_iou(run):
    none = {"iou_teacher": [None] * 3, "miou_teacher": None}
    rewritten(run, lambda line: line | (none if "iou_teacher" in line else {}))
    return "student"


def supervised(run):
    known = ("step", "lr", "loss", "loss_x", "miou_student", "miou_teacher", "iou_student", "iou_teacher")
    rewritten(run, lambda line: {name: value for name, value in line.items() if name in known})
    change_config(run, method__supervised_only=True, data__unlabeled=None)
    return "labelled images alone"


def no_records(run):
    (run / "metrics.jsonl").unlink()
    return "No curves"


def no_val(run):
    change_config(run, data__val=None)
    return "the run has no validation images"


def data_gone(run):
    change_config(run, data__root="/gone")
    return "the run's data cannot be read"


def older(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["data"]["palette"], config["method"]["ablation"]["lambda_r"], config["train"]["select"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return "Not recorded"


CASES = (interrupted, not_a_number, every_loss_not_a_number, no_iou, supervised, no_records, no_val, data_gone, older)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_runs_that_are_not_usual(recorded_run, case):
    said = case(recorded_run)
    page = report(recorded_run)
    assert said in page.text
    assert "nan" not in page.text.lower().split()
    assert ("images" in page.sections) == (case not in (no_val, data_gone))
    assert "IoU over time" in page.text or case in (no_records, no_iou)
    assert ("pseudo-labels confident" in page.text) == (case not in (supervised, no_records))


def test_recorded_numbers_stand_in_for_missing_images(recorded_run):
    data_gone(recorded_run)
    assert "45.0 %" not in report(recorded_run, "--checkpoint", "best").text.split("Classes")[-1].split("Images")[0]
    assert "30.0 %" in report(recorded_run, "--checkpoint", "best").text  # iou_teacher at step 2
    assert "60.0 %" in report(recorded_run, "--checkpoint", "last").text  # and at step 4


@pytest.mark.parametrize("classes", [1, 150])
def test_any_number_of_classes(write_run, photos, record, tmp_path, classes):
    root = shutil.copytree(photos, tmp_path / "photos")
    if classes == 1:
        for mask in (root / "masks").iterdir():
            stored = np.array(Image.open(mask))
            Image.fromarray(np.where(stored == 0, stored, 255).astype(np.uint8)).save(mask)
    lists = dict.fromkeys(("labeled", "unlabeled", "val"), "all.txt")
    names = tuple(f"class {index}" for index in range(classes))
    run = write_run(tmp_path / "run", DataConfig(name="folder", root=str(root), **lists), names)
    lines = [{"step": 10 * i, "miou_teacher": 0.5, "iou_teacher": [0.5] * classes} for i in range(1, 2000)]
    lines = [line | {"coverage_by_class": [0.5] * classes, "accuracy_by_class": [0.5] * classes} for line in lines]
    page = report(record(run, lines))
    assert all(name in page.text for name in names)
    assert len([svg for svg in page.of("svg") if svg.get("class") == "spark"]) == 3 * classes
    assert len(page.source) < 3e6


def test_an_earlier_report_is_replaced_and_no_other_file(recorded_run, tmp_path, refusal):
    first = report(recorded_run).source
    assert report(recorded_run).source == first
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    assert "found another" in refusal(main, recorded_run, "--output", mine)
    assert mine.read_text() == "<p>mine</p>"
    assert main([str(recorded_run), "--output", str(tmp_path / "new" / "page.html")]) == 0
    assert not list(tmp_path.rglob("*.tmp"))


def remove_checkpoints(run):
    shutil.rmtree(run / "checkpoints")
    return "has no checkpoint"


def damage_checkpoint(run):
    path = run / "checkpoints/step_2/teacher.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "step_2"


def other_classes(run):
    change_config(run, data__class_names=["a", "b"], data__num_classes=2, data__palette=None)
    return "model of 3 classes"


def damage_records(run):
    (run / "metrics.jsonl").write_text("no record\n" + (run / "metrics.jsonl").read_text())
    return "metrics.jsonl, line 1"


def damage_summary(run):
    (run / "summary.json").write_text("[]")
    return "summary.json"


def not_a_run(run):
    (run / "config.yaml").unlink()
    return "expected the folder of a run"


BROKEN = (remove_checkpoints, damage_checkpoint, other_classes, damage_records, damage_summary, not_a_run)


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_broken_runs_are_one_line(recorded_run, refusal, damage):
    report(recorded_run)
    before = (recorded_run / "report.html").read_bytes()
    said = damage(recorded_run)
    assert said in refusal(main, recorded_run)
    assert (recorded_run / "report.html").read_bytes() == before


def test_holes_in_the_list_are_one_line(recorded_run, photos, tmp_path, refusal):
    root = shutil.copytree(photos, tmp_path / "photos")
    change_config(recorded_run, data__root=str(root))
    (root / "images/3.png").unlink()
    assert "images/3.png" in refusal(main, recorded_run)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "page.txt"], "expected a .html file, got page.txt"),
        (["--output", "/proc/page.html"], "/proc"),
        (["--checkpoint", "step_9"], "step_9"),
        (["--weights", "both"], "weights: expected one of teacher, student, got both"),
        (["--device", "tpu"], "device must be"),
        (["--ouput", "x.html"], "did you mean --output?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(run, refusal, options, said):
    assert said in refusal(main, run, *options)


def test_wrong_runs(run, tmp_path, refusal):
    assert "expected each once" in refusal(main, run, run)
    assert "expected best or last" in refusal(main, run, tmp_path, "--checkpoint", run / "checkpoints/step_2")
    assert "runs" in refusal(main)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(recorded_run, refusal):
    recorded_run.chmod(0o500)
    assert "permission denied" in refusal(main, recorded_run)


@pytest.mark.parametrize("count", [0, 1, 5, 9])
def test_best_and_worst(count):
    scores = [float(i) for i in range(count)] + [NAN]
    best, worst = best_and_worst(scores)
    assert best == list(range(count))[::-1][:4]
    assert worst == list(range(count))[: max(0, min(4, count - 4))]


def test_version_is_known_without_metadata(recorded_run, without_metadata):
    done = without_metadata("-m", "maskmatch.report", recorded_run)
    assert done.returncode == 0, done.stderr
    assert f"maskmatch {maskmatch.__version__}," in Page(recorded_run / "report.html").text
