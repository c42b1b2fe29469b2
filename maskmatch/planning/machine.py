"""What is chosen for the machine: device, network and its weights, batch and learning rate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from maskmatch.common.device import find_device
from maskmatch.data.decoding.limits import free_memory
from maskmatch.models.cached_weights import cached_weights
from maskmatch.planning.choice import Choice

ON_A_CPU = ("tu-tf_efficientnet_lite0", "tu-mobilenetv3_large_100", "resnet18")
ON_A_GPU = ("resnet50", "resnet34", "tu-tf_efficientnet_lite0")
"""Encoders to learn on with ImageNet's weights, the first of which the weights are there."""
FROM_SCRATCH = "tu-test_resnet"
"""A small one: of the built-in data it learns 73 % mIoU from 8 masks."""
TINY = 112  # pixels of a side below which a deep network is left with little, at its stride
MOST_WORKERS = 8


@dataclass(frozen=True)
class Machine:
    """What a training may have."""

    device: torch.device
    half: bool  # whether it computes in bfloat16 as fast as it should
    free: int  # bytes of the device's memory
    cores: int

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def name(self) -> str:
        """For a reason."""
        return torch.cuda.get_device_name(self.device) if self.gpu else f"a CPU of {self.cores} cores"


def this_machine(device: str = "auto") -> Machine:
    """The machine as it is now; `device` as `train.device` has it.

    Raises:
        UserError: there is no such device.
    """
    found = find_device(device, "train.device")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if found.type != "cuda":
        return Machine(found, half=False, free=free_memory(), cores=cores)
    return Machine(found, torch.cuda.is_bf16_supported(), torch.cuda.mem_get_info(found)[0], cores)


def of_machine(machine: Machine, side: int, yours: Mapping[str, Any]) -> list[Choice]:
    """Device, network and how it is trained; `side` is the median short side of the images in pixels."""
    device = Choice("train.device", machine.device.type, machine.name if machine.gpu else f"{machine.name}, no GPU")
    choices = [device, *_of_network(machine, side, yours)]
    if machine.half:
        choices.append(Choice("train.precision", "bf16", "the GPU has it"))
    if machine.gpu:
        workers = max(1, min(MOST_WORKERS, machine.cores - 1))
        choices.append(Choice("data.workers", workers, f"the GPU is not to wait; {machine.cores} cores"))
    return choices


def _of_network(machine: Machine, side: int, yours: Mapping[str, Any]) -> list[Choice]:
    where = "a GPU" if machine.gpu else "a CPU"
    candidates = [yours["model.encoder"]] if "model.encoder" in yours else ON_A_GPU if machine.gpu else ON_A_CPU
    given = yours.get("model.encoder_weights")
    weights = {} if given is not None or side < TINY else {name: cached_weights(name) for name in candidates}
    encoder = next((name for name in candidates if weights.get(name)), candidates[0])
    if given not in (None, "none") or weights.get(encoder):
        choices = [Choice("model.encoder", encoder, f"of a size for {where}, with ImageNet weights")]
        if given is None:
            choices.append(Choice("model.encoder_weights", str(weights[encoder]), "found on this machine"))
        return [_decoder(machine), *choices, *_of_finetuning(machine)]
    reason = (
        f"the images' side is {side} pixels, so a small network learns from scratch"
        if side < TINY
        else f"a small network learns from scratch, as no ImageNet weights of {', '.join(candidates)} are on this "
        "machine; model.encoder_weights imagenet downloads them"
    )
    arch = Choice("model.arch", "deeplabv3plus", f"for {where}")
    return [arch, Choice("model.encoder", FROM_SCRATCH, reason), *_of_optimizer(machine, 3e-3, 8, "from scratch")]


def _decoder(machine: Machine) -> Choice:
    """Of an encoder that knows ImageNet: on a CPU, which affords few steps, one that learns in few."""
    if machine.gpu:
        return Choice("model.arch", "deeplabv3plus", "for a GPU")
    return Choice("model.arch", "segformer", "a light decoder, which learns in the few steps that a CPU affords")


def _of_finetuning(machine: Machine) -> list[Choice]:
    gentle = "gentle with what was learned from ImageNet"
    if machine.gpu:
        head = Choice("train.head_lr_multiplier", 2.5, "the head starts at random")
        return [*_of_optimizer(machine, 2e-4, 4, gentle), head]
    return _of_optimizer(machine, 5e-4, 4, f"{gentle}, and enough for few steps")


def _of_optimizer(machine: Machine, lr: float, batch: int, reason: str) -> list[Choice]:
    return [
        Choice("train.batch_size", 8 if machine.gpu else 4, "labelled images a step, and as many without masks"),
        Choice("train.lr", lr, f"for {batch} of them a step; {reason}"),
        Choice("train.lr_batch_size", batch, "the batch that the learning rate is for"),
    ]


def largest_crop(machine: Machine, side: int) -> int:
    """The largest side of a crop that the machine affords; `side` as `of_machine` has it."""
    return 320 if machine.gpu else 64 if side < TINY else 128


def of_training(*, supervised: bool) -> list[Choice]:
    """What planned runs alone do; where nothing is unlabelled, there is nothing to hold the run against."""
    beside = Choice("train.baseline_every", 2, "labelled alone is held beside the method, and the better handed over")
    acts = Choice("train.act_on_warnings", True, "a run that collapses does something about it")
    return [acts] if supervised else [beside, acts]
