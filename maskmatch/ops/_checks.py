"""Checks of operator arguments: they raise before any work and say what was expected and what was got."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

LOGIT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_CLASSES = 255
MAX_SIDE = 2**30
"""Longest side of an image: lanes and columns are counted in 32 bits."""


def check_tensor(
    name: str,
    value: object,
    shape: str,
    dtypes: tuple[torch.dtype, ...],
    *,
    device: torch.device | None = None,
) -> Tensor:
    """A dense tensor of the rank that `shape` names (such as "[N, H, W]"), of one of the dtypes, on the device."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor {shape}, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {value.layout}")
    if value.dim() != shape.count(",") + 1:
        raise ValueError(f"{name} must be {shape}, got {list(value.shape)}")
    if value.dtype not in dtypes:
        expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must be {expected}, got {value.dtype}")
    if device is not None and value.device != device:
        raise ValueError(f"{name} must be on {device} like the first argument, got {value.device}")
    return value


def check_shape(name: str, value: Tensor, letters: str, expected: Sequence[int]) -> None:
    """The exact shape, as in `target must be [N, H, W] = [4, 321, 321], got [4, 320, 321]`."""
    if tuple(value.shape) != tuple(expected):
        raise ValueError(f"{name} must be {letters} = {list(expected)}, got {list(value.shape)}")


def check_sides(name: str, value: Tensor) -> None:
    """Height and width, the last two axes, from 1 to MAX_SIDE."""
    if min(value.shape[-2:]) < 1 or max(value.shape[-2:]) > MAX_SIDE:
        raise ValueError(f"{name} must be at least 1 x 1 and have sides up to 2**30, got {list(value.shape)}")


def check_logits(name: str, value: object) -> Tensor:
    """Logits [N, C, h, w] with 1 to 255 classes and at least one pixel."""
    logits = check_tensor(name, value, "[N, C, h, w]", LOGIT_DTYPES)
    classes = logits.shape[1]
    if not 1 <= classes <= MAX_CLASSES:
        raise ValueError(f"{name} must have 1 to {MAX_CLASSES} classes, got {classes} in {list(logits.shape)}")
    check_sides(name, logits)
    return logits


def check_number(name: str, value: object, low: float, high: float) -> float:
    """A finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
    return float(value)


def check_integer(name: str, value: object, low: int, high: int) -> int:
    """An integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
    return value


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_labels(target: Tensor, classes: int, ignore_index: int) -> None:
    """Raises on the CPU; elsewhere and in a compiled graph gather's own check must do, as this one would wait.

    A fake tensor has no labels to look at.
    """
    if target.device.type != "cpu" or torch.compiler.is_compiling() or isinstance(target, FakeTensor):
        return
    wrong = (target != ignore_index) & ((target < 0) | (target >= classes))
    if wrong.any():
        value = target[wrong][0].item()
        raise RuntimeError(f"target must hold classes 0 to {classes - 1} or ignore_index {ignore_index}, got {value}")
