"""A run that was written before options were moved is evaluated and goes on, to the same numbers."""

from __future__ import annotations

import hashlib
import shutil

import pytest
import torch
import yaml

from maskmatch import load
from maskmatch.config.former import CONSTANTS, MOVED, STRENGTHS, flattened
from maskmatch.config.validation import nested


def made_older(options):
    """Options by section with the names that they had."""
    found = flattened(options)
    for old, new in MOVED.items():
        found[old] = found.pop(new)
    found |= zip(STRENGTHS, found.pop("data.jitter_strengths"), strict=True)
    return nested(found | CONSTANTS)


@pytest.fixture
def older_run(finished_run, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(finished_run, folder, symlinks=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(made_older(yaml.safe_load(config.read_text()))))
    for checkpoint in folder.glob("checkpoints/step_*"):
        state = torch.load(checkpoint / "state.pt", weights_only=True)
        state["config"] = made_older(state["config"]) | {"output": "x", "resume": "never", "dry_run": False}
        old_sum = hashlib.sha256((checkpoint / "state.pt").read_bytes()).hexdigest()
        torch.save(state, checkpoint / "state.pt")
        new_sum = hashlib.sha256((checkpoint / "state.pt").read_bytes()).hexdigest()
        sums = checkpoint / "sha256"
        sums.write_text(sums.read_text().replace(old_sum, new_sum))
    return folder


@pytest.mark.slow
def test_it_goes_on(train, older_run, finished_run, tmp_path, assert_same_run):
    today = tmp_path / "today"
    shutil.copytree(finished_run, today, symlinks=True)
    for folder in (older_run, today):
        options = ["--config", folder / "config.yaml", "--output", folder, "--resume", "--train.steps", 12]
        assert train(*options) == 0
    assert_same_run(older_run, today)
    assert (older_run / "config.yaml").read_text() == (today / "config.yaml").read_text()


def test_it_is_loaded_and_nothing_else_is_resumed(older_run, finished_run, train, capsys):
    assert load(older_run).config == load(finished_run).config
    options = ["--config", older_run / "config.yaml", "--output", older_run, "--resume"]
    assert train(*options, "--method.ablation.region", "hidden") == 2
    assert "was written with method.ablation.region = all, got hidden" in capsys.readouterr().err
