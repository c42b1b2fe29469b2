"""Encoder weights are read in every form the field has, and refused when they are another network's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from maskmatch.common.errors import UserError
from maskmatch.config import ModelConfig
from maskmatch.models import build_student
from maskmatch.models.encoder_weights import load_encoder_weights

Weights = dict[str, Tensor]
ENCODER = "tu-test_resnet"


def make_encoder(name: str = ENCODER) -> nn.Module:
    return build_student(ModelConfig(arch="FPN", encoder=name), 3).network.encoder


@pytest.fixture(scope="module")
def published() -> Weights:
    """Another random initialisation of timm's whole network, classifier included."""
    torch.manual_seed(1)
    return timm.create_model(ENCODER.removeprefix("tu-")).state_dict()


def refused(encoder: nn.Module, path: Path, name: str = ENCODER) -> str:
    """The message of the refusal, after a check that it is one line and that nothing was loaded."""
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_encoder_weights(encoder, name, str(path))
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + key: tensor for key, tensor in weights.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "encoder.", "model.", "module.", "module.encoder.", "encoder.model."])
def test_prefixes(published: Weights, prefix: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(prefixed(prefix)(published), path)
    encoder = make_encoder()
    report = load_encoder_weights(encoder, ENCODER, str(path))
    assert "left over: fc.bias, fc.weight" in report
    for key, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, published[key]), key


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"lr": 0.1}},
        lambda weights: {"model": prefixed("module.")(weights), "previous_best": 0.5},
        lambda weights: {"state_dict": {"model": weights}},
    ],
)
def test_checkpoints_around_the_weights(published: Weights, wrap, tmp_path: Path) -> None:
    torch.save(wrap(published), tmp_path / "weights.pth")
    encoder = make_encoder()
    load_encoder_weights(encoder, ENCODER, str(tmp_path / "weights.pth"))
    assert torch.equal(encoder.model.conv1[0].weight, published["conv1.0.weight"])


def test_checkpoint_of_a_whole_segmentation_network(tmp_path: Path) -> None:
    network = build_student(ModelConfig(arch="FPN", encoder="resnet18"), 7).network
    torch.save({"model": prefixed("module.")(network.state_dict())}, tmp_path / "weights.pth")
    encoder = make_encoder("resnet18")
    load_encoder_weights(encoder, "resnet18", str(tmp_path / "weights.pth"))
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, network.encoder.state_dict()[key]), key


def test_names_that_timm_flattens(tmp_path: Path) -> None:
    """timm's feature extractor calls `stages.0` of the published ConvNeXt `stages_0`."""
    published = timm.create_model("test_convnext").state_dict()
    encoder = make_encoder("tu-test_convnext")
    flat = {key.replace(".", "_"): tensor for key, tensor in published.items()}
    torch.save(published, tmp_path / "weights.pth")
    load_encoder_weights(encoder, "tu-test_convnext", str(tmp_path / "weights.pth"))
    assert any(key.startswith("stages_0") for key in encoder.model.state_dict())
    for key, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, flat[key.replace(".", "_")]), key


def test_real_weights(test_data: Path) -> None:
    path = test_data / "weights" / "tf_efficientnet_lite0.safetensors"
    config = ModelConfig(arch="Unet", encoder="tu-tf_efficientnet_lite0", encoder_weights=str(path))
    student = build_student(config, 3)
    published = safetensors.torch.load_file(path)
    left_over = set(published) - set(student.network.encoder.model.state_dict())
    assert len(left_over) == 7
    assert "240 tensors" in student.weights_report
    assert "and 4 more" in student.weights_report
    for key in published.keys() - left_over:
        assert torch.equal(student.network.encoder.model.state_dict()[key], published[key]), key
    assert "lacks: conv1.weight" in refused(make_encoder("resnet18"), path, "resnet18")


def test_counters_of_batches_may_be_missing(published: Weights, tmp_path: Path) -> None:
    torch.save({k: v for k, v in published.items() if "num_batches" not in k}, tmp_path / "weights.pth")
    encoder = make_encoder()
    load_encoder_weights(encoder, ENCODER, str(tmp_path / "weights.pth"))
    assert encoder.model.bn1.num_batches_tracked == 0


def without(weights: Weights, key: str) -> Weights:
    return {k: v for k, v in weights.items() if k != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: without(w, "layer1.0.bn1.weight"), ["lacks: layer1.0.bn1.weight"]),
        (
            lambda w: w | {"layer1.0.bn1.weight": torch.zeros(1)},
            ["other shapes: layer1.0.bn1.weight [1] instead"],
        ),
        (lambda w: w | {"layer9.0.bn1.weight": torch.zeros(1)}, ["unknown keys: layer9.0.bn1.weight"]),
        (lambda w: {"conv1.0.weight": w["conv1.0.weight"]}, ["lacks: conv1.1.weight, ", "more"]),
        (lambda w: {}, ["lacks: conv1.0.weight"]),
    ],
)
def test_weights_of_another_network(published: Weights, change, words: list[str], tmp_path: Path) -> None:
    torch.save(change(published), tmp_path / "weights.pth")
    message = refused(make_encoder(), tmp_path / "weights.pth")
    assert all(word in message for word in ["weights.pth", ENCODER, *words]), message


def test_deeper_network_of_the_same_family(tmp_path: Path) -> None:
    """ResNet-34 has every tensor of ResNet-18, in the same shapes, and more."""
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "resnet.pth")
    assert "unknown keys: layer1.2" in refused(make_encoder("resnet18"), tmp_path / "resnet.pth", "resnet18")


def test_deep_stem_is_told_from_torchvisions(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet50s").state_dict(), tmp_path / "deep.pth")
    torch.save(timm.create_model("resnet50").state_dict(), tmp_path / "plain.pth")
    message = refused(make_encoder("resnet50"), tmp_path / "deep.pth", "resnet50")
    assert "its stem is deep (conv1.0.weight)" in message
    assert "--model.encoder tu-resnet50s" in message
    message = refused(make_encoder("tu-resnet50s"), tmp_path / "plain.pth", "tu-resnet50s")
    assert "its stem is torchvision's (conv1.weight)" in message
    deep = make_encoder("tu-resnet50s")
    assert "left over: fc.bias, fc.weight" in load_encoder_weights(deep, "tu-resnet50s", str(tmp_path / "deep.pth"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x00" * 100])
def test_damaged_file(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert "cannot be read" in refused(make_encoder(), tmp_path / name)


def test_truncated_file(published: Weights, tmp_path: Path) -> None:
    for name, save in (("a.pth", torch.save), ("b.safetensors", safetensors.torch.save_file)):
        save(published, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        assert "cannot be read" in refused(make_encoder(), tmp_path / name)


class Unsafe:
    """What a checkpoint with pickled objects of its trainer holds."""


def test_pickled_objects_are_not_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": Unsafe()}, tmp_path / "weights.pth")
    assert "cannot be read" in refused(make_encoder(), tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_file_without_a_dictionary_of_tensors(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    assert "dictionary of tensors" in refused(make_encoder(), tmp_path / "weights.pth")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "there is no file" in refused(make_encoder(), tmp_path / "none.pth")
    assert "expected none, imagenet" in refused(make_encoder(), tmp_path / "weights.bin")
    assert "expected none, imagenet, a .safetensors" in refused(make_encoder(), Path("Imagenet"))
