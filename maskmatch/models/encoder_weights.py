"""Pretrained encoder weights from a file.

A file fits when every tensor of the encoder is in it with the right shape, and when all that is left over
belongs to a classifier or a decoder. Anything else is refused: weights loaded in part fail in silence.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import timm
import torch
from segmentation_models_pytorch.encoders import TimmUniversalEncoder, TimmViTEncoder
from torch import nn

from maskmatch.common.errors import UserError
from maskmatch.models.weight_files import WRAPPERS, first_few, read_weights

BEYOND_ENCODER = (
    *("fc.", "_fc.", "classifier.", "head.", "last_linear.", "linear."),
    *("decoder.", "segmentation_head.", "classification_head."),
    "mask_token",  # of DINOv2's own training
)
PLAIN_STEM, DEEP_STEM = "conv1.weight", "conv1.0.weight"


def load_encoder_weights(encoder: nn.Module, encoder_name: str, path: str) -> str:
    """Load the file `path` into `encoder`, in place; return one line that says what was loaded and left over.

    Raises UserError when the file cannot be read, or when its keys or shapes are those of another network.
    """
    file = read_weights(Path(path), "model.encoder_weights", or_else="none, imagenet, ")
    given, others = file.encoder()
    own_names, beyond = _published_names(encoder)
    own = encoder.state_dict()
    wanted = {key: own[own_name] for key, own_name in own_names.items()}
    left_over = sorted(given.keys() - wanted.keys())

    # Files of timm come without the counters of batches.
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    misshapen = [
        f"{key} {list(given[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in given and given[key].shape != tensor.shape
    ]
    unknown = [key for key in left_over if key not in beyond and not key.startswith(BEYOND_ENCODER)]
    for fault, keys in (
        ("lacks", missing),
        ("has other shapes", misshapen),
        ("has unknown keys", unknown),
    ):
        if keys:
            what = f"{path} ({file.origin})" if file.origin else path
            raise UserError(
                f"encoder weights {what} are not those of {encoder_name}: the file {fault}: "
                f"{first_few(keys)}{_stem_hint(given, wanted, encoder_name)}"
            )

    encoder.load_state_dict(own | {own_names[key]: given[key] for key in wanted if key in given})
    report = f"{encoder_name}{_stem(wanted)}: {len(given) - len(left_over)} tensors loaded from {path}"
    report += f", {file.origin}" if file.origin else ""
    left_over += sorted(others)
    return f"{report}; left over: {first_few(left_over)}" if left_over else report


def _published_names(encoder: nn.Module) -> tuple[dict[str, str], set[str]]:
    """How the encoder's weights are published.

    Returns published name -> name in the encoder, and the published names that the encoder has no use for.
    timm's feature extractors drop the last layers and flatten `stages.0` to `stages_0`, so timm's whole
    network is asked.
    """
    if not isinstance(encoder, TimmUniversalEncoder | TimmViTEncoder):
        return {key: key for key in encoder.state_dict()}, set()
    with torch.device("meta"):
        whole = timm.create_model(encoder.name)
    by_flat_name = {key.replace(".", "_"): key for key in whole.state_dict()}
    own_names = {}
    for own_name in encoder.state_dict():
        key = own_name
        while key.startswith(WRAPPERS):
            key = key.split(".", 1)[1]
        own_names[by_flat_name.get(key.replace(".", "_"), key)] = own_name
    return own_names, set(by_flat_name.values()) - own_names.keys()


def _stem(keys: Collection[str]) -> str:
    """Which of the two ResNet stems it is, in words; empty for other networks."""
    if "layer1.0.conv1.weight" not in keys:
        return ""
    return " (deep stem)" if DEEP_STEM in keys else " (torchvision's stem)"


def _stem_hint(given: Collection[str], wanted: Collection[str], encoder_name: str) -> str:
    """ResNets come with two stems under one name; say so where that is what went wrong."""
    if DEEP_STEM in given and PLAIN_STEM in wanted:
        twin = f"{encoder_name.removeprefix('tu-')}s"
        hint = f": try --model.encoder tu-{twin}" if timm.is_model(twin) else ""
        return f"; its stem is deep ({DEEP_STEM}), as in timm's resnet50s{hint}"
    if PLAIN_STEM in given and DEEP_STEM in wanted:
        return f"; its stem is torchvision's ({PLAIN_STEM}), {encoder_name} has a deep one ({DEEP_STEM})"
    return ""
