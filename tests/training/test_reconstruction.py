"""A run with the reconstruction head: it learns, it survives a stop, and it is in no file of weights."""

import json

import pytest
import safetensors.torch
import torch

from maskmatch.commands.command_line import parse_train
from maskmatch.common.signals import StopError
from maskmatch.training import train as train_in_python
from tests.training.stop_after import StopAfter

OPTIONS = [
    "--train.steps",
    6,
    "--train.validate_every",
    3,
    "--method.lcr",
    "false",
    "--method.ablation.reconstruction",
    "true",
]


def test_a_run(train, finished_run, fast_options, assert_same_run, tmp_path):
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    assert train(*OPTIONS, "--output", run) == 0
    record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["loss_r"] > 0 and "loss_m" not in record

    bare = safetensors.torch.load_file(finished_run / "checkpoints/last/student.safetensors")
    for network in ("student", "teacher"):
        assert safetensors.torch.load_file(run / f"checkpoints/last/{network}.safetensors").keys() == bare.keys()
    state = torch.load(run / "checkpoints/last/state.pt", weights_only=True)
    assert state["head"].keys() == {"convolution.weight", "convolution.bias"}

    config = parse_train([*fast_options, *map(str, OPTIONS), "--output", str(stopped), "--resume"])
    with pytest.raises(StopError, match="after step 4"):
        train_in_python(config, stop=StopAfter(6))
    train_in_python(config)
    assert_same_run(stopped, run)
