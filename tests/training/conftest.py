"""Training runs small enough for tests: a tiny network on small crops of the built-in data."""

import subprocess
import sys

import pytest

from maskmatch.train import main

FAST = [
    *(
        "--data.crop_size",
        "32",
        "--data.loader",
        "torch",
        "--train.batch_size",
        "2",
        "--method.warmup_steps",
        "2",
    ),
    *("--method.ramp_steps", "2", "--method.threshold", "0.1", "--train.validate_every", "100"),
]


@pytest.fixture(scope="session")
def train():
    """Call the command line in this process; returns its exit code."""

    def call(*options):
        return main([*FAST, *map(str, options)])

    return call


@pytest.fixture(scope="session")
def start():
    """Start the command line as a process of its own."""

    def call(*options, **kwargs):
        command = [sys.executable, "-m", "maskmatch.train", *FAST, *map(str, options)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)

    return call


@pytest.fixture(scope="session")
def finished_run(train, tmp_path_factory):
    """A run of 8 steps that went through."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    code = train("--train.steps", 8, "--train.checkpoint_every", 3, "--output", folder)
    assert code == 0
    return folder
