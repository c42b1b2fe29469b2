"""benchmarks/method_figures.py: a figure for each claim, from the runs that ablation.py leaves."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.ablation import method_figures
from maskmatch.commands.command_line import run
from maskmatch.config import DataConfig
from maskmatch.data.listing.builtin import CLASS_NAMES, PALETTE

ARMS = ("supervised", "consistency", "ms", "lcr", "full", "one-tau")


@pytest.fixture
def runs(write_run, tmp_path):
    """The runs of all arms, one and the same network."""
    palette = ["#{:02x}{:02x}{:02x}".format(*color) for color in PALETTE.tolist()]
    first = write_run(tmp_path / "runs" / f"{ARMS[0]}-seed0-1", DataConfig(), CLASS_NAMES, palette=palette)
    shares = [0.5] * len(CLASS_NAMES)
    lines = [
        {"step": 2, "coverage": 0.5, "accuracy": None, "coverage_by_class": [None, *shares[1:]]},
        {"step": 4, "coverage": 0.6, "accuracy": 0.9, "coverage_by_class": shares},
        {"step": 4, "miou_teacher": 0.5, "iou_teacher": shares},
    ]
    (first / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (first / "summary.json").write_text("{}")
    for arm in ARMS[1:]:
        shutil.copytree(first, first.with_name(f"{arm}-seed0-1"))
    return first.parent


@pytest.mark.slow
def test_all_figures_are_drawn(runs, tmp_path):
    assert method_figures.main([str(runs), "--output", str(tmp_path / "images")]) == 0
    names = ["classes", "compare", "coverage", "masks", "scales"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [f"method-{name}.png" for name in names]
    for name in names:
        pixels = np.array(Image.open(tmp_path / f"images/method-{name}.png").convert("RGB"))
        colors = {tuple(color) for color in pixels.reshape(-1, 3).tolist()}
        assert len(colors) > 20, name
        if name not in ("classes", "coverage"):  # the truth is among the pictures
            assert all(tuple(color) in colors for color in PALETTE.tolist()), name


def test_classes_without_labels_are_refused(runs, tmp_path, refusal):
    error = refusal(lambda options: run(method_figures.main, options), runs, "--classes", "full,ms=a")
    assert "--classes: expected ARM=LABEL,..., got full,ms=a" in error


def test_a_run_that_is_missing_is_named(runs, tmp_path, refusal):
    shutil.rmtree(runs / "ms-seed0-1")
    error = refusal(lambda options: run(method_figures.main, options), runs, "--output", tmp_path / "x")
    assert "finished run of the arm ms" in error and not (tmp_path / "x").exists()


@pytest.mark.slow
def test_the_class_curves_of_any_arms(runs, tmp_path):
    options = ["--classes", "full=alpha 0,ms=alpha 0.5", "--output", str(tmp_path / "images")]
    assert method_figures.main([str(runs), *options]) == 0
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["method-classes-runs.png"]
