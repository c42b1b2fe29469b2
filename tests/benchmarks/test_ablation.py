"""benchmarks/ablation.py: what runs, what is skipped, what is kept, and what the tables say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ablation import command, results
from benchmarks.ablation.arms import ALL, chosen
from benchmarks.ablation.report import groups, write_report
from maskmatch.commands.command_line import parse_train
from maskmatch.common.errors import UserError
from maskmatch.config import Config
from maskmatch.training.schedules import resolve

ABLATION = Path(__file__).resolve().parents[2] / "benchmarks" / "ablation.py"


def configured(arm, seed=0, **changed):
    """Flat options of an arm of the built-in data."""
    return results.flat(Config()) | ALL[arm].overrides() | {"train.seed": seed} | changed


def record(arm, seed, miou, **other):
    return {
        "data": "builtin", "arm": arm, "seed": seed, "steps": 800, "split": "test", "options": "",
        "labeled": "splits/labeled.txt", "labeled_images": 8, "unlabeled_images": 400, "test_images": 200,
        "miou_teacher": miou, "miou_student": miou, "val_miou_teacher": miou, "boundary_miou_teacher": miou / 2,
        "coverage": 0.5, "pseudo_label_accuracy": 0.75, "minutes": 3.0,
        "iou_teacher": [miou, None], "class_names": ["field", "town"],
        "command": f"python -m maskmatch.train --train.seed {seed}", "commit": "abc", "date": "2026-01-01",
        "machine": "one", "threads": 1, "torch": "2",
    } | configured(arm, seed) | other  # fmt: skip


def rows(text, start):
    """Cells of the table rows that begin with `start`."""
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith(start)]


@pytest.fixture
def run_ablation(photos, tmp_path):
    """Runs arms of four steps on six images in a subprocess; returns the lines that it printed."""

    def run(*options, code=0):
        data = ["--data.name", "folder", "--data.root", photos, "--data.num_classes", "3", "--data.crop_size", "32"]
        data += [f"--data.{part}={'two.txt' if part == 'test' else 'all.txt'}" for part in ("labeled", "val", "test")]
        data += ["--data.unlabeled", "all.txt", "--data.class_names", "[field,meadow,town]"]
        command = [sys.executable, ABLATION, "--results", tmp_path / "out/results.jsonl", *options]
        train = ["--train.steps", "4", "--train.batch_size", "2", "--train.validate_every", "2"]
        environment = os.environ | {"MASKMATCH_TEST_DATA": str(photos.parent)}
        done = subprocess.run([*command, *data, *train], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
        return (done.stdout + done.stderr).splitlines()

    return run


@pytest.mark.slow
def test_goes_on_where_it_was_stopped(run_ablation, photos, tmp_path):
    lines = run_ablation("--arms", "supervised", "--data-name", "six")
    file = tmp_path / "out/results.jsonl"
    with open(file, "a") as torn:
        torn.write('{"data": "six", "arm": "fu')
    lines = run_ablation("--arms", "supervised,ratio-0.3,full", "--data-name", "six", "--jobs", "2")
    assert "ratio-0.3 is full" in lines
    assert lines[1].startswith("2 runs, 1 of them in ")

    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert [first["arm"], second["arm"]] == ["supervised", "full"]
    for found in (first, second):
        assert found["data"] == "six" and found["seed"] == 0 and found["steps"] == 4 and found["split"] == "test"
        assert found["labeled_images"] == 6 and found["test_images"] == 2 and found["threads"] == 1
        for weights in ("student", "teacher"):
            present = [iou for iou in found[f"iou_{weights}"] if iou is not None]
            assert found[f"miou_{weights}"] == pytest.approx(sum(present) / len(present))
            (measured,) = (tmp_path / "runs/ablation/six").glob(f"{found['arm']}-*/evaluation/*-step_4-{weights}.json")
            assert found[f"miou_{weights}"] == json.loads(measured.read_text())["miou"]
    assert first["coverage"] is None and 0 <= second["coverage"] <= 1
    assert "--data.root $MASKMATCH_TEST_DATA/" in second["command"] and str(photos.parent) not in json.dumps(second)
    assert first["command"].endswith("--method.supervised_only true --train.seed 0")

    table = (tmp_path / "out/results.md").read_text()
    (row,) = rows(table, "| MaskMatch | ")[:1]
    assert row[1] == f"{100 * second['miou_teacher']:.1f}"
    assert (tmp_path / "out/images/results-six-6-4-main.png").stat().st_size > 0


@pytest.mark.slow
def test_mistakes_are_one_line(run_ablation):
    (line,) = run_ablation("--arms", "fool", code=2)
    assert line.startswith("error: --arms: expected main, ablations or some of supervised, ") and line.endswith("fool")


def test_a_failed_run_is_named_and_the_others_go_on(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "parse_train", lambda options: Config())
    ran = []

    def run(job, threads, processes):
        ran.append(job.arm.name)
        if job.arm.name == "ms":
            raise UserError("no space left")
        return record(job.arm.name, job.seed, 0.5)

    monkeypatch.setattr(command, "train_and_measure", run)
    monkeypatch.setattr(command, "_config", lambda options: configured_run(options))
    code = command.main(["--arms", "ms,consistency", "--results", str(tmp_path / "results.jsonl")])
    assert code == 1 and ran == ["ms", "consistency"]
    assert "builtin ms seed 0 failed: no space left" in capsys.readouterr().err
    assert [r["arm"] for r in results.read(tmp_path / "results.jsonl")[0]] == ["consistency"]


def configured_run(options):
    return resolve(parse_train(options), 1)


def test_arms_of_the_table_are_options_of_the_training():
    names = set(results.flat(Config()))
    for arm in ALL.values():
        assert set(arm.overrides()) <= names, arm
        configured_run(list(arm.options))
    assert chosen("full,main")[0].name == "full" and len(chosen("full,main")) == len(chosen("main"))


def test_options_that_a_run_does_not_use_do_not_make_it_another():
    def same(one, other):
        return results.identity(one) == results.identity(other)

    changed = {"method.mask_ratio": 0.9}
    assert not same(configured("full"), configured("full", **changed))
    assert same(configured("consistency"), configured("consistency", **changed))
    assert same(configured("supervised"), configured("supervised", **{"method.threshold": 0.1}))
    assert not same(configured("consistency"), configured("consistency", **{"method.threshold": 0.1}))
    assert not same(configured("supervised"), configured("supervised", **{"method.ohem": 0.5}))
    older = configured("full")
    del older["method.ablation.average"]
    assert same(older, configured("full")) and not same(
        older, configured("full", **{"method.ablation.average": "logit"})
    )


def test_records_with_options_of_before(tmp_path):
    """They are the same runs as with today's names."""
    results.append(tmp_path / "old", {"method.region": "hidden", "data.hue": 0.2, "train.momentum": 0.9, "arm": "a"})
    (older,), _ = results.read(tmp_path / "old")
    today = {"method.ablation.region": "hidden", "data.jitter_strengths": [0.3, 0.3, 0.3, 0.2]}
    assert results.identity(older) == results.identity(today) != results.identity({})
    assert older["arm"] == "a" and "train.momentum" not in older


def test_whole_lines_survive_torn_ones(tmp_path):
    path = tmp_path / "results.jsonl"
    results.append(path, {"seed": 0})
    path.write_text(path.read_text() + '{"seed": 1}')  # whole, but for its end
    results.append(path, {"seed": 2})
    path.write_text("half\n" + path.read_text() + '{"seed"')
    assert results.read(path) == ([{"seed": 0}, {"seed": 1}, {"seed": 2}], [1, 5])
    results.append(path, {"seed": 3})
    assert results.read(path) == ([{"seed": 0}, {"seed": 1}, {"seed": 2}, {"seed": 3}], [1])


def test_tables_say_means_deviations_and_gains(tmp_path):
    records = [record("supervised", s, m) for s, m in ((0, 0.50), (1, 0.54))]
    records += [record("full", s, m) for s, m in ((0, 0.70), (1, 0.60), (0, 0.62))]  # seed 0 twice: the later counts
    records += [record("ratio-0.5", 0, 0.64), record("ratio-0.3", 0, 0.1, **{"method.mask_ratio": 0.9})]
    write_report(tmp_path / "results.md", records)
    text = (tmp_path / "results.md").read_text()
    (full,) = [row for row in rows(text, "| MaskMatch | ") if len(row) == 11]
    assert full[1] == "61.0 &#177; 1.4" and full[3] == "30.5" and full[5] == "+9.0 &#177; 4.2"
    assert full[7:] == ["50.0", "75.0", "3.0", "2"]
    (classes,) = [row for row in rows(text, "| MaskMatch | ") if len(row) == 3]
    assert classes[1:] == ["61.0", ""]
    found = {tuple(row[:3]): row for row in rows(text, "| ") if len(row) == 9}
    topic = "share of the patches that are hidden"
    assert found[topic, "0.3 (MaskMatch)", "61.0 &#177; 1.4"][4] == ""
    assert found["", "0.5", "64.0"][4] == "+2.0"
    assert ("", "0.9", "10.0") in found  # told by its options, not by its name


def test_text_around_the_tables_stays(tmp_path):
    path = tmp_path / "results.md"
    write_report(path, [record("full", 0, 0.5)])
    path.write_text(path.read_text().replace("# Results", "# Results\n\nMine.") + "\nMine too.\n")
    other = record("full", 0, 0.4, data="camvid", options="--config configs/camvid.yaml")
    write_report(path, [record("full", 0, 0.6), other])
    text = path.read_text()
    assert text.index("Mine.") < text.index("| 60.0 |") < text.index("Mine too.") < text.index("| 40.0 |")
    assert "50.0 | 50.0" not in text


def test_other_lengths_are_other_tables():
    found = groups([record("full", 0, 0.5), record("full", 1, 0.5), record("full", 0, 0.5, steps=400)])
    assert [(group.name, len(group.records)) for group in found] == [("builtin-8-800", 2), ("builtin-8-400", 1)]
