"""Pretrained encoder weights from a file, in whichever form the field passes them around.

A file fits when every tensor of the encoder is in it with the right shape, and when all that is left over
belongs to a classifier or a decoder. Anything else is refused: weights loaded in part fail in silence.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from segmentation_models_pytorch.encoders import TimmUniversalEncoder, TimmViTEncoder
from torch import Tensor, nn

from maskmatch.errors import UserError

PREFIXES = ("module.", "model.", "encoder.")
NESTED_UNDER = ("state_dict", "model")
BEYOND_ENCODER = (
    *("fc.", "_fc.", "classifier.", "head.", "last_linear.", "linear."),
    *("decoder.", "segmentation_head.", "classification_head."),
)


def load_encoder_weights(encoder: nn.Module, encoder_name: str, path: str) -> str:
    """Load the file `path` into `encoder`, in place; return one line that says what was loaded and left over.

    Raises UserError when the file cannot be read, or when its keys or shapes are those of another network.
    """
    given = {_strip_prefixes(key): tensor for key, tensor in _read(Path(path)).items()}
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
            raise UserError(
                f"encoder weights {path} are not those of {encoder_name}: the file {fault}: "
                f"{_first_few(keys)}{_stem_hint(given, wanted, encoder_name)}"
            )

    encoder.load_state_dict(own | {own_names[key]: given[key] for key in wanted if key in given})
    report = f"{encoder_name}: {len(given) - len(left_over)} tensors loaded from {path}"
    return f"{report}; left over: {_first_few(left_over)}" if left_over else report


def _read(path: Path) -> dict[str, Tensor]:
    """The dictionary of tensors in a file."""
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"model.encoder_weights: expected none, imagenet, a .safetensors or a .pth file, got {path}")
    if not path.is_file():
        raise UserError(f"model.encoder_weights: there is no file {path}")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own family of errors for a damaged or foreign file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"encoder weights {path} cannot be read: {reason}") from error
    for key in NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"encoder weights {path} must hold a dictionary of tensors, bare or under "
            f"{' or '.join(map(repr, NESTED_UNDER))}"
        )
    return content


def _strip_prefixes(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key


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
        key = _strip_prefixes(own_name)
        own_names[by_flat_name.get(key.replace(".", "_"), key)] = own_name
    return own_names, set(by_flat_name.values()) - own_names.keys()


def _stem_hint(given: Collection[str], wanted: Collection[str], encoder_name: str) -> str:
    """ResNets come with two stems under one name; say so where that is what went wrong."""
    plain, deep = "conv1.weight", "conv1.0.weight"
    if deep in given and plain in wanted:
        twin = f"{encoder_name.removeprefix('tu-')}s"
        hint = f": try --model.encoder tu-{twin}" if timm.is_model(twin) else ""
        return f"; its stem is deep ({deep}), as in timm's resnet50s{hint}"
    if plain in given and deep in wanted:
        return f"; its stem is torchvision's ({plain}), {encoder_name} has a deep one ({deep})"
    return ""


def _first_few(keys: list[str], count: int = 3) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more
