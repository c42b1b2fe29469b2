"""Training runs small enough for tests: a tiny network on small crops of the built-in data."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from maskmatch.commands.train import main

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
def fast_options():
    return FAST


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


@pytest.fixture(scope="session")
def assert_same_run():
    """That two run folders hold the same numbers: every record, both networks bit by bit, the optimizer, the best."""

    def check(one, other):
        assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
        for checkpoint in ("last", "best"):
            for network in ("student", "teacher"):
                path = f"checkpoints/{checkpoint}/{network}.safetensors"
                a, b = safetensors.torch.load_file(one / path), safetensors.torch.load_file(other / path)
                assert a.keys() == b.keys()
                assert all(torch.equal(a[key], b[key]) for key in a)
        states = [torch.load(folder / "checkpoints/last/state.pt", weights_only=True) for folder in (one, other)]
        a, b = (state["optimizer"]["state"] for state in states)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key][name], b[key][name]) for key in a for name in a[key])
        summaries = [json.loads((folder / "summary.json").read_text()) for folder in (one, other)]
        assert all(a == b for a, b in zip(*map(timeless, summaries), strict=True))

    def timeless(summary):
        return [value for name, value in summary.items() if name not in TIMINGS]

    return check


TIMINGS = ("images_per_second", "step_ms", "data_wait_ms", "data_wait", "peak_memory_mb")
