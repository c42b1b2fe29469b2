"""examples/own_loop.py, started as a reader would: its network learns from the labels and from the teacher."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskmatch.config import DataConfig
from maskmatch.data import load_dataset, read_pair

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"step (\d+): labelled ([\d.]+) strong ([\d.]+) masked ([\d.]+)")


@pytest.mark.slow
def test_the_losses_are_live_and_the_network_learns():
    paths = os.pathsep.join(sys.path)  # the maskmatch that is tested
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "own_loop.py", "40"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [[float(number) for number in found] for found in LINE.findall(done.stdout)]
    assert [step for step, *_ in steps] == [0, 10, 20, 30, 39]
    labelled = [loss for _, loss, _, _ in steps]
    assert max(labelled[-2:]) < 0.5 * labelled[0]
    assert steps[0][2:] == steps[1][2:] == [0, 0]  # the warm-up
    assert min(steps[-1][2:]) > 0.01

    dataset = load_dataset(DataConfig(), supervised_only=True)
    masks = [read_pair(pair.image, pair.mask, dataset.mask_table)[1] for pair in dataset.val]
    counts = np.bincount(np.stack(masks).ravel(), minlength=256)[:255]
    right = float(done.stdout.splitlines()[-1].removeprefix("pixels right on val: "))
    assert right > 2 * counts.max() / counts.sum()  # than for the most frequent class everywhere
