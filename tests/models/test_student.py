"""The student is the bare network of segmentation_models.pytorch but for its last upsampling."""

from __future__ import annotations

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig, ModelConfig
from maskmatch.models import Student, build_student, check_crop, from_module

CLASSES = 5
NETWORKS = {  # architecture -> encoder, stride of its logits
    "FPN": ("resnet18", 4),
    "PAN": ("resnet18", 4),
    "PSPNet": ("resnet18", 8),
    "DeepLabV3": ("resnet18", 8),
    "DeepLabV3Plus": ("tu-test_resnet", 4),
    "UPerNet": ("tu-test_resnet", 4),
    "Segformer": ("mit_b0", 4),
    "Unet": ("mobilenet_v2", 1),
    "UnetPlusPlus": ("tu-test_resnet", 1),
    "Linknet": ("resnet18", 1),
    "MAnet": ("tu-test_resnet", 1),
    "DPT": ("tu-test_vit", 2),
}


def test_every_architecture_is_covered() -> None:
    assert set(NETWORKS) == {arch.__name__ for arch in smp.MODEL_ARCHITECTURES_MAPPING.values()}


@pytest.mark.parametrize("arch", NETWORKS)
def test_student_is_the_bare_network_without_its_upsampling(arch: str) -> None:
    encoder, stride = NETWORKS[arch]
    student = build_student(ModelConfig(arch=arch, encoder=encoder), CLASSES)
    options = {"dynamic_img_size": True} if arch == "DPT" else {}
    bare = smp.create_model(arch, encoder, encoder_weights=None, classes=CLASSES, **options)

    def shapes(network: nn.Module) -> list[tuple[str, torch.Size]]:
        return [(name, parameter.shape) for name, parameter in network.named_parameters()]

    assert shapes(student.network) == shapes(bare)
    bare.load_state_dict(student.network.state_dict())
    height, width = student.padded_size(70), student.padded_size(100)
    images = torch.rand(2, 3, height, width)
    with torch.no_grad():
        logits, expected = student.network.eval()(images), bare.eval()(images)
    assert logits.shape == (2, CLASSES, height // stride, width // stride)
    upsampled = F.interpolate(logits, (height, width), mode="bilinear", align_corners=student.align_corners)
    torch.testing.assert_close(upsampled, expected)


@pytest.mark.parametrize("arch", NETWORKS)
def test_sizes_that_the_network_takes(arch: str) -> None:
    student = build_student(ModelConfig(arch=arch, encoder=NETWORKS[arch][0]), CLASSES)
    network = student.network.eval()

    def takes(size: int) -> bool:
        try:
            network(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError):
            return False
        return True

    assert takes(student.min_size)
    assert takes(student.min_size + student.size_multiple)
    if student.size_multiple > 1:
        assert not takes(student.min_size + student.size_multiple // 2)
    if student.min_size > student.size_multiple:
        assert not takes(student.min_size - student.size_multiple)


@pytest.mark.parametrize("encoder", ["efficientnet-b0", "vgg11"])
def test_any_size_but_the_smallest(encoder: str) -> None:
    """Unet takes any size, these encoders none below 32."""
    student = build_student(ModelConfig(arch="unet", encoder=encoder), CLASSES)
    assert (student.size_multiple, student.min_size) == (1, 32)


def test_building_leaves_the_network_as_built() -> None:
    """Finding out the smallest size must not touch statistics, nor leave the network in evaluation mode."""
    network = build_student(ModelConfig(arch="FPN", encoder="resnet18"), CLASSES).network
    assert all(module.training for module in network.modules())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.num_batches_tracked == 0 and norm.running_mean.eq(0).all() for norm in norms)


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride(stride: int) -> None:
    student = build_student(ModelConfig(arch="DeepLabV3Plus", encoder="resnet18", output_stride=stride), CLASSES)
    assert student.size_multiple == stride
    assert student.network.encoder(torch.zeros(1, 3, 32, 32))[-1].shape[-1] == 32 // stride


@pytest.mark.parametrize(
    ("encoder", "mean", "std"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("tu-resnet10t", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("tu-tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("timm-tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
@pytest.mark.filterwarnings("ignore:.timm-. encoders are deprecated:DeprecationWarning")
def test_normalization_is_the_encoders(encoder: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    student = build_student(ModelConfig(arch="FPN", encoder=encoder), CLASSES)
    assert (student.mean, student.std) == (mean, std)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arch": "deeplabv3+"}, ["model.arch 'deeplabv3+'", "DeepLabV3Plus"]),
        ({"arch": ""}, ["model.arch ''"]),
        ({"encoder": "resnet10t"}, ["model.encoder 'resnet10t'", "nearest are tu-resnet10t"]),
        ({"encoder": "resnet51"}, ["model.encoder 'resnet51'", "resnet50"]),
        ({"encoder": "tu-resnet10t.none"}, ["model.encoder 'tu-resnet10t.none'", "tu-resnet10t.c3_in1k"]),
        ({"arch": "FPN", "output_stride": 16}, ["model.output_stride", "FPN", "16"]),
        ({"arch": "DeepLabV3Plus", "output_stride": 7}, ["DeepLabV3Plus", "resnet18", "got 7"]),
        ({"arch": "Linknet", "encoder": "mit_b0"}, ["Linknet", "mit_b0"]),
        ({"arch": "DPT", "encoder": "resnet18"}, ["DPT", "resnet18"]),
    ],
)
def test_unknown_and_impossible_networks(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build_student(ModelConfig(**{"arch": "FPN", "encoder": "resnet18"} | options), CLASSES)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet10t"])
def test_download_that_fails_is_one_line(encoder: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"imagenet.*could be downloaded.*\.safetensors or \.pth") as caught:
        build_student(ModelConfig(arch="FPN", encoder=encoder, encoder_weights="imagenet"), CLASSES)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 40), st.integers(1, 5), st.floats(-10, 2000, allow_nan=False), st.integers(1, 2000))
def test_sizes_are_the_nearest_allowed(multiple: int, least: int, wanted: float, side: int) -> None:
    student = from_module(nn.Identity(), size_multiple=multiple, min_size=least * multiple)
    allowed = range(student.min_size, 2100 + 6 * multiple, multiple)
    assert student.nearest_size(wanted) in allowed
    assert abs(student.nearest_size(wanted) - wanted) == min(abs(size - wanted) for size in allowed)
    assert student.padded_size(side) == min(size for size in allowed if size >= side)


@pytest.fixture(scope="module")
def pan() -> Student:
    """PAN is the one whose smallest size is more than a single multiple: 128, in steps of 16."""
    return build_student(ModelConfig(arch="PAN", encoder="resnet18"), CLASSES)


@pytest.mark.parametrize(("crop", "pair"), [(128, (128, 128)), ((144, 320), (144, 320))])
def test_good_crop(pan: Student, crop: int | tuple[int, int], pair: tuple[int, int]) -> None:
    assert check_crop(pan, DataConfig(crop_size=crop).crop) == pair


@pytest.mark.parametrize(
    ("crop", "nearest"),
    [(64, "128,128"), (0, "128,128"), (-5, "128,128"), (321, "320,320"), ((136, 320), "144,320")],
)
def test_bad_crop(pan: Student, crop: int | tuple[int, int], nearest: str) -> None:
    with pytest.raises(UserError, match=rf"data\.crop_size.*16.*128.*the nearest is {nearest}$"):
        check_crop(pan, DataConfig(crop_size=crop).crop)


def test_from_module() -> None:
    network = nn.Conv2d(3, CLASSES, 1)
    student = from_module(network, size_multiple=4, align_corners=True, mean=(0, 0, 0), std=(1, 1, 1))
    assert student == Student(network, 4, 4, True, (0, 0, 0), (1, 1, 1))
