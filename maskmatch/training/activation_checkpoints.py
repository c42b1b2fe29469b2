"""Activation checkpointing (Chen et al., 2016): memory for time, without a change to the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from maskmatch.method.batchnorm import running_statistics

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_activations(network: nn.Module) -> int:
    """Have the network's blocks keep their inputs alone; the backward pass computes the rest again.

    A block is what stands in a row of its like: a bottleneck of a ResNet, a layer of a ViT, a stage of a decoder.
    Call it after the teacher was copied, which needs no backward pass. Names of parameters stay.

    Returns:
        The number of blocks.
    """
    blocks = list(_blocks(network))
    for block in blocks:
        block.forward = partial(_forward, block, block.forward)
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules inside a container that are neither containers nor single layers."""
    for child in module.children():
        in_a_row = isinstance(module, CONTAINERS) and not isinstance(child, CONTAINERS)
        if in_a_row and any(child.children()):
            yield child
        else:
            yield from _blocks(child)


def _forward(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)

    def contexts() -> tuple[Any, Any]:  # of the forward, and of its repetition, which BatchNorm must not count twice
        return nullcontext(), running_statistics(block, update=False)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)
