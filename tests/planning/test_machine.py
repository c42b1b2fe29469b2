"""Network and batch by what a machine has: weights in its caches, memory, a GPU or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from maskmatch.common.errors import UserError
from maskmatch.config import Config, TrainConfig
from maskmatch.models.cached_weights import cached_weights
from maskmatch.planning import memory
from maskmatch.planning.machine import Machine, of_machine
from maskmatch.training.memory import Memory

CPU = Machine(torch.device("cpu"), half=False, free=2**33, cores=2)
LITE = "tu-tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches in the place of the user's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path


def chosen(machine: Machine, side: int, **yours: object) -> dict[str, object]:
    named = {f"model.{name}": value for name, value in yours.items()}
    return {one.option: one.value for one in of_machine(machine, side, named)}


@pytest.mark.parametrize(
    ("encoder", "file"),
    [
        (LITE, "hub/models--timm--tf_efficientnet_lite0.in1k/snapshots/0f/model.safetensors"),
        (LITE, "torch/checkpoints/tf_efficientnet_lite0-0aa007d2.pth"),
        ("resnet50", "hub/models--smp-hub--resnet50.imagenet/snapshots/0f/model.safetensors"),
        ("tu-resnet50", "hub/models--timm--resnet50.a1_in1k/snapshots/0f/pytorch_model.bin"),
        ("resnet50", "torch/checkpoints/resnet50-0676ba61.pth"),
    ],
)
def test_weights_of_a_cache(hub: Path, encoder: str, file: str) -> None:
    assert cached_weights(encoder) is None
    (hub / file).parent.mkdir(parents=True)
    (hub / file).touch()
    assert cached_weights(encoder) == hub / file
    assert cached_weights("resnet18") is None
    assert cached_weights("mit_b0") is None  # which timm does not know


def test_with_weights_and_without(hub: Path) -> None:
    without = chosen(CPU, 240)
    assert without["model.encoder"] != LITE and "model.encoder_weights" not in without
    file = hub / "hub/models--timm--tf_efficientnet_lite0.in1k/snapshots/0f/model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    found = chosen(CPU, 240)
    assert (found["model.encoder"], found["model.encoder_weights"]) == (LITE, str(file))
    assert found["train.lr"] < without["train.lr"]
    assert found["model.arch"] == "segformer"
    assert chosen(CPU, 48) == without  # of which a deep network would leave nothing
    assert "model.encoder_weights" not in chosen(CPU, 240, encoder_weights="none")
    assert chosen(CPU, 240, encoder_weights="my.pth")["train.lr"] == found["train.lr"]
    assert chosen(CPU, 240, encoder="resnet18") == without  # of which there are none


def test_a_gpu_has_half_precision_and_more_at_once() -> None:
    gpu = chosen(replace(CPU, device=torch.device("meta")), 240)
    assert "train.precision" not in gpu and "data.workers" not in gpu
    assert chosen(replace(CPU, half=True), 240)["train.precision"] == "bf16"


def test_what_does_not_fit_is_made_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mildest change that fits; tests/training/test_memory.py holds what is measured."""
    config = replace(Config(), train=TrainConfig(batch_size=4, accumulate=3))
    peaks = {(False, 4): 1000, (True, 4): 700, (True, 2): 400}

    def measure(config: Config, num_classes: int) -> Memory:
        peak = peaks[config.train.checkpoint_activations, config.train.batch_size]
        return Memory(0, 0, 0, 0, batch=0, activations=peak)

    monkeypatch.setattr(memory, "measure_memory", measure)
    twice = {"checkpoint_activations": True}
    for peak, changes in ((1000, {"accumulate": 1}), (700, twice), (400, twice | {"batch_size": 2, "accumulate": 6})):
        found = memory.of_memory(config, 3, int(peak / 0.84))
        assert {one.option.split(".")[1]: one.value for one in found} == changes
    with pytest.raises(UserError, match=r"data\.crop_size"):
        memory.of_memory(config, 3, 400)
