"""Which forwards update the running statistics of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Kept, since every step asks for them and a large network has hundreds of modules to look through.
_found: WeakKeyDictionary[nn.Module, list[_BatchNorm]] = WeakKeyDictionary()


@contextmanager
def running_statistics(network: nn.Module, *, update: bool) -> Iterator[None]:
    """Inside is one forward; in training mode it normalises with the batch's statistics, and records them if `update`.

    A BatchNorm counts the forwards of the network, whether and how often it had a part in them: all by one operator.
    """
    norms = [norm for norm in _batchnorms(network) if norm.training and not (update and norm.momentum is None)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = norm.momentum if update else 0.0
        norm.num_batches_tracked = _uncounted(norm)
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
    counts = [count for _, count in kept if count is not None]
    if update and counts:
        torch._foreach_add_(counts, 1)


def _uncounted(norm: _BatchNorm) -> Tensor | None:
    """What a norm may count on without a trace; SyncBatchNorm insists on a tensor, the others take None."""
    count = norm.num_batches_tracked
    return torch.empty_like(count) if isinstance(norm, nn.SyncBatchNorm) and count is not None else None


def has_batchnorm(network: nn.Module) -> bool:
    """Whether a forward in training mode depends on the batch that an image comes in."""
    return bool(_batchnorms(network))


def _batchnorms(network: nn.Module) -> list[_BatchNorm]:
    if network not in _found:
        _found[network] = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return _found[network]
