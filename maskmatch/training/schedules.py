"""What follows from the number of steps: learning rates, and the defaults of everything left open."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from maskmatch.config import Config, TrainConfig

DEFAULT_STEPS = 800


def resolve(config: Config, images: int) -> Config:
    """Fill in what the configuration leaves open.

    Args:
        images: length of the list that an epoch goes through.
    """
    train, method = config.train, config.method
    steps = train.steps
    if steps is None:
        steps = -(-train.epochs * images // train.batch_size) if train.epochs else DEFAULT_STEPS
    tenth = max(1, steps // 10)
    return replace(
        config,
        train=replace(
            train,
            steps=steps,
            validate_every=train.validate_every or tenth,
            checkpoint_every=train.checkpoint_every or tenth,
        ),
        method=replace(
            method,
            warmup_steps=steps // 10 if method.warmup_steps is None else method.warmup_steps,
            ramp_steps=steps // 10 if method.ramp_steps is None else method.ramp_steps,
            ema_momentum=_momentum(steps) if method.ema_momentum is None else method.ema_momentum,
        ),
    )


def _momentum(steps: int) -> float:
    """A memory of a tenth of the run: long enough to average, short enough not to lag."""
    return min(0.999, max(0.9, 1 - 10 / steps))


def make_optimizer(network: nn.Module, config: TrainConfig) -> Optimizer:
    """Two groups, so that everything but the encoder can learn faster than it.

    Fused: one kernel on a GPU, which also lets fp16's scaler skip a step unasked; on a CPU a third of foreach's time.
    """
    encoder: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (encoder if name.startswith("encoder.") else rest).append(parameter)
    groups = [
        {"params": params, "lr": config.lr * factor, "base_lr": config.lr * factor}
        for params, factor in ((encoder, 1.0), (rest, config.head_lr_multiplier))
        if params
    ]
    if config.optimizer == "sgd":
        return SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)
    return AdamW(groups, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: Optimizer, step: int, config: TrainConfig) -> float:
    """Poly schedule: lr * (1 - step / steps) ** power. Returns the encoder's learning rate."""
    factor = (1 - step / (config.steps or 1)) ** config.poly_power
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return config.lr * factor
