"""Which forwards update the running statistics of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Kept, since looking for them takes longer than all else here.
_found: WeakKeyDictionary[nn.Module, list[_BatchNorm]] = WeakKeyDictionary()


@contextmanager
def running_statistics(network: nn.Module, *, update: bool) -> Iterator[None]:
    """Inside, forwards in training mode normalise with the batch's statistics, but record them only if `update`."""
    tracking = [] if update else [norm for norm in _batchnorms(network) if norm.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True


def has_batchnorm(network: nn.Module) -> bool:
    """Whether a forward in training mode depends on the batch that an image comes in."""
    return bool(_batchnorms(network))


def _batchnorms(network: nn.Module) -> list[_BatchNorm]:
    if network not in _found:
        _found[network] = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return _found[network]
