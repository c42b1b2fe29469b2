"""Which forwards update the running statistics of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Kept, since every step asks for them and a large network has hundreds of modules to look through.
_found: WeakKeyDictionary[nn.Module, list[_BatchNorm]] = WeakKeyDictionary()


@contextmanager
def running_statistics(network: nn.Module, *, update: bool) -> Iterator[None]:
    """Inside, forwards in training mode normalise with the batch's statistics, but record them only if `update`."""
    norms = [] if update else _batchnorms(network)
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def has_batchnorm(network: nn.Module) -> bool:
    """Whether a forward in training mode depends on the batch that an image comes in."""
    return bool(_batchnorms(network))


def _batchnorms(network: nn.Module) -> list[_BatchNorm]:
    if network not in _found:
        _found[network] = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return _found[network]
