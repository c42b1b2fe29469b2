"""Starting from another run's network: everything is loaded, the classifier only where the classes are as many."""

import pytest
import safetensors.torch
import torch

from maskmatch.common.errors import UserError
from maskmatch.config import ModelConfig
from maskmatch.models import build_student, init_from

MODEL = ModelConfig("FPN", "tu-test_resnet")


def network(classes, seed=0, model=MODEL):
    torch.manual_seed(seed)
    return build_student(model, classes).network


@pytest.fixture
def run(tmp_path):
    """A run folder whose best teacher has 5 classes, and that teacher."""
    trained = network(5, seed=1)
    folder = tmp_path / "run" / "checkpoints" / "best"
    folder.mkdir(parents=True)
    safetensors.torch.save_file(trained.state_dict(), folder / "teacher.safetensors")
    return tmp_path / "run", trained.state_dict()


def test_as_many_classes(run):
    folder, trained = run
    mine = network(5)
    report = init_from(mine, str(folder), 5)
    assert f"{len(trained)} tensors" in report and "at random" not in report
    assert all(torch.equal(tensor, trained[key]) for key, tensor in mine.state_dict().items())


@pytest.mark.parametrize("classes", [3, 8])
def test_another_number_of_classes(run, classes):
    folder, trained = run
    mine = network(classes)
    before = {key: tensor.clone() for key, tensor in mine.state_dict().items()}
    report = init_from(mine, str(folder / "checkpoints" / "best"), classes)
    assert f"(5 classes there, {classes} here)" in report and "segmentation_head.0.weight" in report
    for key, tensor in mine.state_dict().items():
        assert torch.equal(tensor, (before if key.startswith("segmentation_head") else trained)[key]), key


def test_a_checkpoint_file_with_prefixes(run, tmp_path):
    _, trained = run
    torch.save({"model": {f"module.{key}": tensor for key, tensor in trained.items()}}, tmp_path / "x.pth")
    mine = network(5)
    init_from(mine, str(tmp_path / "x.pth"), 5)
    assert torch.equal(mine.state_dict()["segmentation_head.0.bias"], trained["segmentation_head.0.bias"])


@pytest.mark.parametrize("other", [ModelConfig("Unet", "tu-test_resnet"), ModelConfig("FPN", "resnet18")])
def test_another_network_is_refused_whole(run, other):
    mine = network(5, model=other)
    before = {key: tensor.clone() for key, tensor in mine.state_dict().items()}
    with pytest.raises(UserError, match=r"teacher.safetensors is not of this model.arch.*lacks") as error:
        init_from(mine, str(run[0]), 5)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in mine.state_dict().items())


def test_nothing_to_start_from(tmp_path):
    with pytest.raises(UserError, match="expected a run, a checkpoint or a file"):
        init_from(network(5), str(tmp_path), 5)
    with pytest.raises(UserError, match="there is no file"):
        init_from(network(5), str(tmp_path / "none.pth"), 5)
