"""Builds the emulator (see emulator.h) and offers its operators on torch's CPU tensors, as the backend `cuda-emulated`.

`load("checked")` sees every load and store: bounds, races and traffic; `load("sanitized")` is compiled with
AddressSanitizer and UBSan, and needs their libraries preloaded; `load("profiled")` is "checked" with the lines of the
source in it. Builds are kept in build/emulator.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskmatch.ops import _backend
from maskmatch.ops._patch_mask import memory_format
from maskmatch.ops.reference import hidden_patches

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
KERNELS = sorted((CSRC / "cuda").glob("*.cu"))
EMULATOR = Path(__file__).resolve().parent
RUNTIME = [EMULATOR / f"{name}.cpp" for name in ("emulator", "memory", "bindings")]
OWN = {*KERNELS, *RUNTIME}

BUILD = ROOT / "build" / "emulator"
NAME = "cuda-emulated"

_COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas"]
_COMMON += [f"-I{EMULATOR / 'include'}", f"-I{CSRC / 'cuda'}"]
_VARIANTS = {
    "checked": ["-O2", "-fsanitize=thread"],
    "profiled": ["-O2", "-g", "-fsanitize=thread"],
    "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "--param=asan-stack=0"],
}


def compiler() -> str | None:
    return shutil.which("c++") or shutil.which("g++")


def build(variant: str = "checked", kernels: Sequence[Path] = tuple(KERNELS), folder: Path = BUILD) -> Path:
    """Compiles the kernels and the emulator into a module in `folder` and gives its path; what is there is kept."""
    compiled = objects(kernels, RUNTIME, variant, folder)
    module = _kept(compiled, "maskmatch_emulator.so", [variant], folder)
    if not module.exists():
        sanitizers = ["-fsanitize=address,undefined"] if variant == "sanitized" else []
        _make(module, ["-shared", *sanitizers, *map(str, compiled)])
    return module


def objects(kernels: Sequence[Path], runtime: Sequence[Path], variant: str, folder: Path) -> list[Path]:
    """Compiles kernels, as the variant has it, and files of the emulator; those of the project are kept for all."""
    import pybind11

    python = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"]]
    jobs = [(source, ["-x", "c++", *_COMMON, *_VARIANTS[variant]]) for source in kernels]
    jobs += [(source, ["-O3", *_COMMON, *python]) for source in runtime]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: _compile(job[0], job[1], BUILD if job[0] in OWN else folder), jobs))


def _compile(source: Path, flags: list[str], folder: Path) -> Path:
    found = sorted([*CSRC.rglob("*"), *EMULATOR.rglob("*")])
    headers = [path for path in found if path.suffix in (".h", ".cuh") or path.name == "cassert"]
    target = _kept([source, *headers], f"{source.stem}.o", flags, folder)
    if not target.exists():
        _make(target, [*flags, "-c", str(source)])
    return target


def _kept(inputs: Sequence[Path], name: str, flags: Sequence[str], folder: Path) -> Path:
    """Where what is made from these files with these flags is kept."""
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in inputs:
        digest.update(path.read_bytes())
    target = folder / digest.hexdigest()[:16] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _make(target: Path, arguments: list[str]) -> None:
    command = [compiler() or "c++", *arguments, "-o", f"{target}.{os.getpid()}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed:\n{result.stderr}")
    os.replace(f"{target}.{os.getpid()}", target)


def load_module(path: Path) -> ModuleType:
    # pybind11 keeps one module a name; the last part says what the module calls itself.
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}.{path.stem}", path)
    assert spec is not None and spec.loader is not None  # noqa: S101 - a file that was just built
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def backend(order: int = 0, variant: str | None = None) -> Iterator[Emulated]:
    """Makes the emulated kernels the backend of a block; an `order` other than 0 shuffles threads and blocks.

    MASKMATCH_EMULATOR=sanitized chooses that build where none is named.
    """
    emulator = load(variant or os.environ.get("MASKMATCH_EMULATOR", "checked"))
    emulator.module.set_thread_order(order)
    with _backend.extra_backend(NAME, "cpu", emulator.forms()):
        yield emulator


@cache
def load(variant: str = "checked") -> Emulated:
    return Emulated(load_module(build(variant)))


def _array(tensor: Tensor | None) -> np.ndarray | None:
    """The memory of a contiguous tensor; bfloat16, which numpy does not know, as uint16."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class Emulated:
    """The operators with the arguments and results of `maskmatch.ops.reference`."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def patch_mask(
        self,
        images: Tensor,
        patch_size: int,
        mask_ratio: float,
        seeds: Tensor,
        strategy: str,
        mean: Sequence[float],
        std: Sequence[float],
        fill: Sequence[float],
    ) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        rows, columns = -(-height // patch_size), -(-width // patch_size)
        layout = memory_format(images)
        images = images.contiguous(memory_format=layout)
        dtype = torch.float32 if images.dtype == torch.uint8 else images.dtype
        output = torch.empty_like(images, dtype=dtype, memory_format=layout)
        grid = torch.empty(count, rows, columns, dtype=torch.bool)
        channels_last = layout == torch.channels_last
        unit = 255 if images.dtype == torch.uint8 else 1
        self.module.patch_mask(
            _flat(images, channels_last), list(images.shape), channels_last, patch_size,
            hidden_patches(rows * columns, mask_ratio), _array(seeds.contiguous()),
            ("random", "block", "grid").index(strategy), [1 / (unit * s) for s in std],
            [-m / s for m, s in zip(mean, std, strict=True)],
            [(f - m) / s for f, m, s in zip(fill, mean, std, strict=True)],
            _flat(output, channels_last), _array(grid),
        )  # fmt: skip
        return output, grid

    def multiscale_pseudo_label(
        self,
        logits: Sequence[Tensor],
        height: int,
        width: int,
        flipped: Sequence[bool],
        weights: Sequence[float],
        average: str,
        align_corners: bool,
    ) -> tuple[Tensor, Tensor]:
        label = torch.empty(logits[0].shape[0], height, width, dtype=torch.uint8)
        confidence = torch.empty(label.shape)
        self.module.multiscale_pseudo_label(
            [_array(scale.contiguous()) for scale in logits], list(flipped), list(weights),
            average == "probability", align_corners, _array(label), _array(confidence),
        )  # fmt: skip
        return label, confidence

    def upsample_cross_entropy(self, *inputs: Any) -> Tensor:
        return _CrossEntropy.apply(self.module, *inputs)

    def uniform(self, seeds: Tensor, count: int, stream: int) -> Tensor:
        numbers = torch.empty(seeds.shape[0], count)
        self.module.uniform(_array(seeds.contiguous()), stream, _array(numbers))
        return numbers

    def forms(self) -> dict[str, Callable[..., Any]]:
        """What a backend offers, by operator."""
        return {
            "patch_mask": self.patch_mask,
            "multiscale_pseudo_label": self.multiscale_pseudo_label,
            "upsample_cross_entropy": self.upsample_cross_entropy,
        }


def _flat(images: Tensor, channels_last: bool) -> np.ndarray | None:
    """The images in the order of memory."""
    return _array(images.permute(0, 2, 3, 1) if channels_last else images)


_LOSS, _LOSS_AND_GRADIENT, _GRADIENT = range(3)  # LossMode of loss_args.h
_NORMALIZE = ("all", "confident", "given", "none")  # of loss_args.h


class _CrossEntropy(torch.autograd.Function):
    """As csrc/cuda/upsample_cross_entropy.cpp and maskmatch/ops/_upsample_cross_entropy.py together."""

    @staticmethod
    def forward(ctx: Any, module: ModuleType, logits: Tensor, target: Tensor, *rest: Any) -> Tensor:
        *maps_and_options, normalize, given_divisor = rest
        inputs = [v.contiguous() if isinstance(v, Tensor) else v for v in (logits, target, *maps_and_options)]
        with_gradient, per_pixel = ctx.needs_input_grad[1], normalize == "none"
        loss = torch.empty(target.shape if per_pixel else ())
        divisor = None if per_pixel else torch.empty(())
        log_sum = torch.empty(target.shape) if per_pixel and with_gradient else None
        gradient = torch.empty(logits.shape) if with_gradient and not per_pixel else None
        inputs += [_NORMALIZE.index(normalize), given_divisor]
        _call(
            module, _LOSS if gradient is None else _LOSS_AND_GRADIENT, inputs, None, log_sum,
            loss if per_pixel else None, gradient, None if per_pixel else loss, divisor,
        )  # fmt: skip
        ctx.module, ctx.inputs, ctx.log_sum, ctx.gradient, ctx.divisor = module, inputs, log_sum, gradient, divisor
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        logits = ctx.inputs[0]
        if ctx.log_sum is None:
            gradient = (ctx.gradient * (gradients[0] / ctx.divisor)).to(logits.dtype)
        else:
            gradient = torch.empty(logits.shape, dtype=logits.dtype)
            upstream = gradients[0].float().contiguous()
            _call(ctx.module, _GRADIENT, ctx.inputs, upstream, ctx.log_sum, None, gradient, None, None)
        return None, gradient, *[None] * 10


def _call(module: ModuleType, mode: int, inputs: list[Any], *outputs: Tensor | None) -> None:
    arguments = [_array(value) if isinstance(value, Tensor) else value for value in inputs]
    module.upsample_cross_entropy(mode, *arguments, *map(_array, outputs))
