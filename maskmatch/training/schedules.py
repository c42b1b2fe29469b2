"""What follows from the number of steps: learning rates, and the defaults of everything left open."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from maskmatch.config import Config, TrainConfig, filled_in

DEFAULT_STEPS = 800
MOMENTUM = 0.9  # of SGD
POLY_POWER = 0.9


def resolve(config: Config, images: int, processes: int = 1) -> Config:
    """Fill in what the configuration leaves open.

    Args:
        images: length of the list that an epoch goes through.
        processes: that share the work.
    """
    train, steps = config.train, config.train.steps
    if steps is None:
        steps = -(-train.epochs * images // global_batch(train, processes)) if train.epochs else DEFAULT_STEPS
    data = replace(config.data, name=config.data.layout)
    return filled_in(replace(config, data=data, train=replace(train, steps=steps)), steps)


def global_batch(config: TrainConfig, processes: int) -> int:
    """Labelled images that a step sees, over all processes and micro-batches."""
    return config.batch_size * config.accumulate * processes


def scaled_lr(config: TrainConfig, batch: int) -> float:
    """`lr` for a global batch of `batch`: in proportion for SGD (Goyal et al., 2017), by the root for AdamW
    (Malladi et al., 2022)."""
    ratio = batch / config.lr_batch_size
    return config.lr * (ratio if config.optimizer == "sgd" else math.sqrt(ratio))


def lr_report(config: TrainConfig, batch: int) -> str:
    """The learning rate of a global batch of `batch`, and where it differs from `lr` also why."""
    if batch == config.lr_batch_size:
        return f"lr {config.lr:g}"
    ratio = f"{batch}/{config.lr_batch_size}"
    factor = ratio if config.optimizer == "sgd" else f"sqrt({ratio})"
    return f"lr {scaled_lr(config, batch):.4g} = {config.lr:g} x {factor} for {batch} images a step"


def make_optimizer(network: nn.Module, config: TrainConfig, processes: int = 1) -> Optimizer:
    """Two groups, so that everything but the encoder can learn faster than it.

    Fused: one kernel on a GPU, which also skips a step and divides by the loss scale on the device's word; the fastest
    on a CPU too. Its learning rates are on the device, where a CUDA graph reads them: float32 on a GPU, whose kernels
    take no other, and float64 on a CPU, whose kernels compute in it.
    """
    encoder: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (encoder if name.startswith("encoder.") else rest).append(parameter)
    lr = scaled_lr(config, global_batch(config, processes))
    groups = [
        {"params": params, "lr": lr * factor, "base_lr": lr * factor}
        for params, factor in ((encoder, 1.0), (rest, config.head_lr_multiplier))
        if params
    ]
    optimizer: Optimizer
    if config.optimizer == "sgd":
        optimizer = SGD(groups, momentum=MOMENTUM, weight_decay=config.weight_decay, fused=True)
    else:
        optimizer = AdamW(groups, weight_decay=config.weight_decay, fused=True)
    device = next(network.parameters()).device
    on_gpu = device.type == "cuda"
    for group in optimizer.param_groups:
        dtype = torch.float32 if on_gpu else torch.float64
        group["lr"] = torch.full((), group["base_lr"], dtype=dtype, device=device)
        if (
            "capturable" in group
        ):  # AdamW wants to hear that a CUDA graph may have its steps; fused they always could be
            group["capturable"] = on_gpu
    return optimizer


def learning_rates(optimizer: Optimizer, step: int, config: TrainConfig) -> list[float]:
    """Of each group at a step, counted from 0; poly schedule: lr * (1 - step / steps) ** power."""
    factor = (1 - step / (config.steps or 1)) ** POLY_POWER
    return [group["base_lr"] * factor for group in optimizer.param_groups]


def set_learning_rate(optimizer: Optimizer, step: int, config: TrainConfig) -> None:
    """Set what `learning_rates` says, in place on the device."""
    for group, rate in zip(optimizer.param_groups, learning_rates(optimizer, step, config), strict=True):
        group["lr"].fill_(rate)


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Its state_dict with the learning rates as numbers; waits for the device."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = group["lr"].item()
    return state


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Go on from there; where the learning rates are, and what this device is told, stays."""
    names = [name for name in ("lr", "capturable") if name in optimizer.param_groups[0]]
    own: list[dict[str, Any]] = [{name: group[name] for name in names} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        kept["lr"].fill_(group["lr"])
        group.update(kept)
