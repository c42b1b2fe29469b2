"""A student network and what the rest needs to know about it.

`build_student` makes it from an architecture's and an encoder's name, `from_module` from any `nn.Module`.
Networks of segmentation_models.pytorch end with a bilinear upsampling of their logits to the input's size. It
is taken out here, because the fused operators upsample where the result is used.
"""

from __future__ import annotations

import difflib
import inspect
import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import huggingface_hub
import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import nn

from maskmatch.common.errors import UserError
from maskmatch.config import ModelConfig
from maskmatch.models.encoder_weights import load_encoder_weights
from maskmatch.models.vit import DPT, drop_hidden_tokens, repair_decoder

RGB = tuple[float, float, float]
IMAGENET: tuple[RGB, RGB] = (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
HALF: tuple[RGB, RGB] = (timm.data.IMAGENET_INCEPTION_MEAN, timm.data.IMAGENET_INCEPTION_STD)
NATIVE_NORMALIZATIONS: dict[tuple[str, ...], tuple[RGB, RGB]] = {
    ("inception", "xception", "timm-tf_efficientnet_lite"): HALF,
    ("dpn",): ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
}
"""Mean and std, by the start of an encoder's name, where segmentation_models.pytorch does not use ImageNet's.

It keeps them on a server and only there, and a network must be fed alike with and without a connection.
"""

LONGEST_PROBE = 12
"""Up to how many encoder strides a size is sought that the network takes; PAN wants 8."""


@dataclass(frozen=True)
class Student:
    """A network that returns logits at its own stride, and how to feed and read it."""

    network: nn.Module
    """Takes normalised images [N, 3, H, W], returns logits [N, C, h, w] with h <= H and w <= W."""
    size_multiple: int
    """H and W must be multiples of it ..."""
    min_size: int
    """... and at least this, itself a multiple."""
    align_corners: bool
    """How the logits' grid lies on the image's, as in `torch.nn.functional.interpolate`."""
    mean: RGB
    """What the network expects to be subtracted from each channel, in units of [0, 1] images."""
    std: RGB
    """What it expects each channel then to be divided by, likewise."""
    weights_report: str = ""
    """One line on the pretrained weights that were loaded; empty where there were none."""
    token_size: int | None = None
    """Side in pixels of a ViT's token, where the network's forward takes `hidden` patches and leaves them out."""

    def nearest_size(self, side: float) -> int:
        """The height or width nearest to `side` that the network takes, the larger of two."""
        return max(self.min_size, math.floor(side / self.size_multiple + 0.5) * self.size_multiple)

    def padded_size(self, side: int) -> int:
        """The smallest height or width that the network takes and that is at least `side`."""
        return max(self.min_size, math.ceil(side / self.size_multiple) * self.size_multiple)


def from_module(
    module: nn.Module,
    *,
    size_multiple: int = 1,
    min_size: int | None = None,
    align_corners: bool = False,
    mean: RGB = IMAGENET[0],
    std: RGB = IMAGENET[1],
) -> Student:
    """Wrap any module that takes images [N, 3, H, W] and returns logits [N, C, h, w]."""
    return Student(module, size_multiple, min_size or size_multiple, align_corners, mean, std)


def build_student(config: ModelConfig, num_classes: int) -> Student:
    """Build a network of segmentation_models.pytorch without its final upsampling.

    Parameters keep the names, shapes and order of the bare network. Those that are drawn at random are drawn
    from torch's global generator, as in every module.

    Raises UserError for an unknown architecture or encoder, an output stride that the network does not have,
    and weights that are missing or do not fit.
    """
    arch = _find_architecture(config.arch)
    _check_encoder(config.encoder)
    options = _options(config, arch)
    network = _create(config, arch, num_classes, options)
    weights_report = ""
    if config.encoder_weights == "imagenet":
        network = _create_with_download(config, arch, num_classes, options)
        weights_report = f"{config.encoder}: ImageNet weights"
    elif config.encoder_weights != "none":
        weights_report = load_encoder_weights(network.encoder, config.encoder, config.encoder_weights)
    repair_decoder(network)
    align_corners = _strip_upsampling(network)
    size_multiple, min_size = _sizes(network)
    mean, std = _normalization(config.encoder)
    token_size = drop_hidden_tokens(network)
    return Student(network, size_multiple, min_size, align_corners, mean, std, weights_report, token_size)


def check_crop(student: Student, crop: tuple[int, int]) -> tuple[int, int]:
    """Return `crop`, (height, width); raise UserError, with the nearest good one, where the network takes no such."""
    height, width = crop
    nearest = student.nearest_size(height), student.nearest_size(width)
    if nearest == (height, width):
        return height, width
    raise UserError(
        f"data.crop_size must be a multiple of {student.size_multiple} and at least {student.min_size} "
        f"for this network, got {height},{width}: the nearest is {nearest[0]},{nearest[1]}"
    )


def check_patches(student: Student, crop: tuple[int, int], patch_size: int) -> None:
    """Raise UserError, with the nearest that fits, where hidden patches cannot be left out of the student's encoder.

    A patch must be made of whole tokens, and a crop of whole patches. Students that take every patch take any.
    """
    token = student.token_size
    if token is None:
        return
    if patch_size % token:
        nearest = max(1, math.floor(patch_size / token + 0.5)) * token
        raise UserError(
            f"method.patch_size must be a multiple of {token}, the side of this ViT's tokens, got {patch_size}: "
            f"the nearest is {nearest}"
        )
    if any(side % patch_size for side in crop):
        multiple = math.lcm(patch_size, student.size_multiple)
        nearest_crop = ",".join(str(max(1, math.floor(side / multiple + 0.5)) * multiple) for side in crop)
        raise UserError(
            f"data.crop_size must be a multiple of method.patch_size {patch_size}, as this ViT leaves whole patches "
            f"out, got {crop[0]},{crop[1]}: the nearest is {nearest_crop}"
        )


def _find_architecture(name: str) -> type[SegmentationModel]:
    architectures = smp.MODEL_ARCHITECTURES_MAPPING | {"dpt": DPT}
    if name.lower() not in architectures:
        near = difflib.get_close_matches(name.lower(), architectures, n=3, cutoff=0.0)
        raise UserError(
            f"model.arch {name!r} is unknown: the nearest are {_names(architectures[n] for n in near)}; "
            f"all are {_names(architectures.values())}"
        )
    return architectures[name.lower()]


def _names(classes: Any) -> str:
    return ", ".join(c.__name__ for c in classes)


def _check_encoder(name: str) -> None:
    timm_name, _, tag = name.removeprefix("tu-").partition(".")
    if name in smp.encoders.encoders:
        return
    if name.startswith("tu-") and timm.is_model(timm_name):
        tags = timm.models.get_arch_pretrained_cfgs(timm_name)
        if not tag or name.removeprefix("tu-") in tags:
            return
        near = [f"tu-{known}" for known in tags]
    elif timm.is_model(timm_name):
        near = [f"tu-{timm_name}"]
    else:
        known = [*smp.encoders.encoders, *(f"tu-{model}" for model in timm.list_models())]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    raise UserError(f"model.encoder {name!r} is unknown: the nearest are {', '.join(near)}")


def _options(config: ModelConfig, arch: type[SegmentationModel]) -> dict[str, Any]:
    """Keyword arguments of the architecture beyond names and classes."""
    options: dict[str, Any] = {}
    if config.output_stride is not None:
        if "encoder_output_stride" not in inspect.signature(arch.__init__).parameters:
            raise UserError(
                f"model.output_stride is an option of DeepLabV3, DeepLabV3Plus and PAN; "
                f"{arch.__name__} has none, got {config.output_stride}"
            )
        options["encoder_output_stride"] = config.output_stride
    timm_config = _timm_config(config.encoder)
    if timm_config and timm_config.fixed_input_size:
        # Made for one input size unless told otherwise, by a switch that Swin names in its own way.
        options |= {"strict_img_size": False} if "swin" in config.encoder else {"dynamic_img_size": True}
    return options


def _create(
    config: ModelConfig, arch: type[SegmentationModel], num_classes: int, options: dict[str, Any]
) -> SegmentationModel:
    try:
        return arch(encoder_name=config.encoder, encoder_weights=None, classes=num_classes, **options)
    except Exception as error:  # whatever the libraries raise for a pair that does not go together
        given = "".join(f", {name}={value}" for name, value in options.items())
        raise UserError(
            f"model.arch {arch.__name__} cannot be built with model.encoder {config.encoder}{given}: "
            f"{_first_line(error)}"
        ) from error


def _create_with_download(
    config: ModelConfig, arch: type[SegmentationModel], num_classes: int, options: dict[str, Any]
) -> SegmentationModel:
    weights = True if config.encoder.startswith("tu-") else "imagenet"
    huggingface_hub.utils.logging.set_verbosity_error()  # its retries would bury the one line below
    try:
        return arch(encoder_name=config.encoder, encoder_weights=weights, classes=num_classes, **options)
    except Exception as error:  # without weights the network was built, so this is the download
        raise UserError(
            f"model.encoder_weights imagenet: no weights of {config.encoder} could be downloaded "
            f"({_first_line(error)}); pass the path of a .safetensors or .pth file, or none"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip("\"' ")


def _strip_upsampling(network: SegmentationModel) -> bool:
    """Take the upsampling out of the segmentation head; return its `align_corners`."""
    head = network.segmentation_head
    if hasattr(head, "upsampling_factor"):  # DPT interpolates in its head's forward, with aligned corners
        head.upsampling_factor = 1
        return True
    for name, module in head.named_children():
        if isinstance(module, nn.Upsample):
            setattr(head, name, nn.Identity())
            return bool(module.align_corners)
    return False


def _sizes(network: SegmentationModel) -> tuple[int, int]:
    """The multiple that sizes must be of, and the smallest size.

    The encoder names a stride, but a decoder can ask for more: PAN's pooling for 128 pixels, DPT's fusion for
    twice the stride. So the smallest two sizes that go through are sought.
    """
    stride = network.encoder.output_stride if network.requires_divisible_input_shape else 1
    network.eval()
    longest = LONGEST_PROBE * network.encoder.output_stride
    taken = list(islice((size for size in range(stride, longest + 1, stride) if _takes(network, size)), 2))
    network.train()
    if len(taken) < 2:
        raise UserError(f"model.arch and model.encoder do not go together: {network.name} takes no image size")
    return taken[1] - taken[0], taken[0]


@torch.no_grad()
def _takes(network: nn.Module, size: int) -> bool:
    try:
        network(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def _normalization(encoder: str) -> tuple[RGB, RGB]:
    """Mean and std that the encoder's published weights were trained with; ImageNet's where unknown."""
    if encoder.startswith("tu-"):
        config = _timm_config(encoder)
        return (tuple(config.mean), tuple(config.std)) if config else IMAGENET
    for prefixes, normalization in NATIVE_NORMALIZATIONS.items():
        if encoder.startswith(prefixes):
            return normalization
    return IMAGENET


def _timm_config(encoder: str) -> Any:
    """timm's record of the weights of a `tu-` encoder; None for other encoders and where it has none."""
    return timm.models.get_pretrained_cfg(encoder.removeprefix("tu-")) if encoder.startswith("tu-") else None
