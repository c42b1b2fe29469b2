"""Files of weights, in whichever form the field passes them around.

| file | written by | what is taken |
|---|---|---|
| `{model, optimizer, epoch, previous_best}` | UniMatch | model |
| the same with `model_ema` | UniMatch V2 | model_ema |
| `{model_state, teacher_state, optimizer_state, epoch, best_miou}` | U2PL, AugSeg | teacher_state |
| `{state_dict, ...}`, `{model, ...}` | timm, torchvision, many others | it |
| a bare dictionary, `.safetensors` | many, this project among them | it |

Their keys may begin with `module.` (DistributedDataParallel) or `model.` (timm inside another network); the encoder
of a segmentation network is under `encoder.` or `backbone.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
from torch import Tensor

from maskmatch.common.errors import UserError
from maskmatch.common.tensor_files import read_tensors

WRAPPERS = ("module.", "model.")
ENCODERS = ("encoder.", "backbone.")
TAKEN = ("model_ema", "teacher_state", "model_state", "state_dict", "model")
"""Where the weights stand in a checkpoint, the moving average before the network that it follows."""
NUMPY_SCALARS: list[Any] = [  # trainers save their best mIoU as one, and torch reads only what is named
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32")),
]


class WeightFile(NamedTuple):
    """What a file holds."""

    origin: str  # in words: whose checkpoint it is and which part was taken
    tensors: dict[str, Tensor]  # without the wrappers' prefixes

    def encoder(self) -> tuple[dict[str, Tensor], list[str]]:
        """The encoder's tensors by their names in it, and the keys of all others where the file tells them apart."""
        for prefix in ENCODERS:
            inside = {
                _unwrapped(key.removeprefix(prefix)): tensor
                for key, tensor in self.tensors.items()
                if key.startswith(prefix)
            }
            if inside:
                return inside, [key for key in self.tensors if not key.startswith(prefix)]
        return self.tensors, []


def read_weights(path: Path, option: str, or_else: str = "") -> WeightFile:
    """Read a .safetensors, .pth or .pt file; nothing in it is executed.

    Raises:
        UserError: there is no such file, it cannot be read, or holds no tensors. The message names `option` and
            what it takes beside files, `or_else`.
    """
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"{option}: expected {or_else}a .safetensors or a .pth file, got {path}")
    if not path.is_file():
        raise UserError(f"{option}: there is no file {path}")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = read_tensors(path, NUMPY_SCALARS)
    except Exception as error:  # each format has its own family of errors for a damaged or foreign file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{option}: {path} cannot be read: {reason}") from error
    origin, tensors = _recognise(content)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(
            f"{option}: {path} must hold a dictionary of tensors, bare or under {' or '.join(map(repr, TAKEN))}"
        )
    return WeightFile(origin, {_unwrapped(key): tensor for key, tensor in tensors.items()})


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor], num_classes: int) -> tuple[list[str], str]:
    """How weights fail to fit a network with `num_classes` classes.

    Args:
        own: the network's state_dict.
        given: the weights.

    Returns:
        The names of the classifier's tensors that were made for another number of classes; and what else does
        not fit, in words, empty where all does.
    """
    classifier = sorted(
        key for key in own.keys() & given.keys() if _differs_in_classes(given[key], own[key], num_classes)
    )
    lacking = sorted(own.keys() - given.keys())
    misshapen = sorted(
        f"{key} {list(given[key].shape)} instead of {list(own[key].shape)}"
        for key in own.keys() & given.keys() - set(classifier)
        if given[key].shape != own[key].shape
    )
    unknown = sorted(given.keys() - own.keys())
    for fault, keys in (("lacks", lacking), ("has other shapes", misshapen), ("has unknown keys", unknown)):
        if keys:
            return classifier, f"it {fault}: {first_few(keys)}"
    return classifier, ""


def _differs_in_classes(given: Tensor, own: Tensor, num_classes: int) -> bool:
    """Whether a tensor is of a classifier that was made for another number of classes."""
    return given.shape != own.shape and own.shape[:1] == (num_classes,) and given.shape[1:] == own.shape[1:]


def _recognise(content: Any) -> tuple[str, Any]:
    """Who wrote a checkpoint, and the weights in it."""
    origin, outermost, taken = "", content, ""
    while isinstance(content, dict):
        taken = next((key for key in TAKEN if isinstance(content.get(key), dict)), "")
        if not taken:
            break
        content, origin = content[taken], origin or taken
    if not origin or not isinstance(content, dict):
        return "", content
    if "model_ema" in outermost and "previous_best" in outermost:
        writer = "a UniMatch V2 checkpoint"
    elif "previous_best" in outermost:
        writer = "a UniMatch checkpoint"
    elif "teacher_state" in outermost and "model_state" in outermost:
        writer = "a U2PL checkpoint" if _has_u2pl_heads(content) else "an AugSeg checkpoint"
    else:
        writer = "a checkpoint"
    epoch = f", epoch {outermost['epoch']}" if isinstance(outermost.get("epoch"), int) else ""
    return f"{origin} of {writer}{epoch}", content


def _has_u2pl_heads(weights: Mapping[str, object]) -> bool:
    """U2PL's network has a head for its contrastive loss and an auxiliary one; AugSeg's is the same without them."""
    return any(".representation." in key or "auxor." in key for key in weights)


def _unwrapped(key: str) -> str:
    while key.startswith(WRAPPERS):
        key = key.split(".", 1)[1]
    return key


def first_few(keys: list[str], count: int = 3) -> str:
    """A list of keys for a message that stays one line."""
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more
