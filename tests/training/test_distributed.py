"""Several gloo processes train what one process does, and end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

SCRIPT = Path(__file__).with_name("process.py")
OPTIONS = [
    *("--no-fused", "--data.loader", "torch", "--data.crop_size", "32", "--train.steps", "20", "--train.device", "cpu"),
    *(
        "--method.warmup_steps",
        "2",
        "--method.ramp_steps",
        "2",
        "--method.threshold",
        "0.5",
        "--method.scales",
        "[1.0,1.5]",
    ),
    *("--method.class_thresholds", "true", "--method.logit_adjustment", "0.5"),
    *("--method.ablation.region", "hidden", "--train.validate_every", "10", "--train.checkpoint_every", "7"),
]


def start(processes, *options):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    command = [sys.executable, *launcher, SCRIPT, *options]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(processes, output, *options, code=0):
    process = start(processes, *OPTIONS, "--output", output, *options)
    out, err = process.communicate(timeout=900)
    assert process.returncode == code, out + err
    return out, err


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder, name):
    return safetensors.torch.load_file(folder / "checkpoints" / "last" / f"{name}.safetensors")


def without_none(value):
    return [-1 if number is None else number for number in value] if isinstance(value, list) else value


def assert_same(one, other):
    for record, expected in zip(records(one), records(other), strict=True):
        assert record.keys() == expected.keys()
        for name, value in record.items():
            assert without_none(value) == pytest.approx(without_none(expected[name]), rel=1e-9, abs=1e-9), name
    for name in ("student", "teacher"):
        ours, theirs = weights(one, name), weights(other, name)
        for key in theirs:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process at batch 4."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(1, folder, "--train.batch_size", 4)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "options"),
    [
        (2, ["--train.batch_size", 2]),
        (2, ["--train.batch_size", 2, "--train.compile", "true"]),
        (1, ["--train.batch_size", 2, "--train.accumulate", 2]),
        (1, ["--train.batch_size", 4, "--train.branches", "joint"]),
    ],
    ids=["two processes", "two compiled processes", "two micro-batches", "joint branches"],
)
def test_the_split_of_a_batch_changes_nothing(alone, tmp_path, processes, options):
    out, _ = run(processes, tmp_path / "run", *options)
    assert_same(tmp_path / "run", alone)
    last = records(alone)[-1]
    assert last["loss_u"] > 0 and last["loss_m"] > 0 and 0 < last["coverage"] < 1
    assert out.count("is in") == 1  # one process speaks
    assert len(list(tmp_path.glob("run/tensorboard/*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_resuming_with_another_number_of_processes(alone, tmp_path, first, then):
    folder = tmp_path / "run"
    process = start(first, *OPTIONS, "--output", folder, "--train.batch_size", 4 // first)
    while not (folder / "checkpoints" / "last").exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in err.split("Sending process")[0], err
    step = int(os.readlink(folder / "checkpoints" / "last").removeprefix("step_"))
    assert 7 <= step < 20
    run(then, folder, "--train.batch_size", 4 // then, "--resume")
    assert_same(folder, alone)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_run_with_its_error(tmp_path):
    process = start(2, "--fail-rank", 1, *OPTIONS, "--output", tmp_path / "run", "--train.batch_size", 2)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "ArithmeticError: this process was made to fail" in err


@pytest.mark.slow
def test_what_is_wrong_is_said_once(tmp_path):
    _, err = run(2, tmp_path / "run", "--train.batch_size", 2, "--data.labeled", "missing.txt", code=1)
    assert err.count("missing.txt") == 1, err
    assert not (tmp_path / "run").exists()
