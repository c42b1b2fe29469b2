"""Both loaders for the tests: opening one, taking batches, comparing them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from maskmatch import data
from maskmatch.common.batch import Batch
from maskmatch.config import DataConfig
from maskmatch.data import Loader, load_dataset, make_loader

needs_dali = pytest.mark.skipif(not data.dali_installed(), reason="DALI is not installed")
LOADERS = ["torch", pytest.param("dali", marks=needs_dali)]
CPU = torch.device("cpu")


def open_loader(
    config: DataConfig,
    name: str,
    *,
    global_batch: int = 4,
    seed: int = 0,
    start_step: int = 0,
    supervised_only: bool = False,
    device: torch.device = CPU,
    rank: int = 0,
    world_size: int = 1,
    normalize: tuple[list[float], list[float]] | None = None,
) -> Loader:
    config = dataclasses.replace(config, loader=name)
    return make_loader(
        load_dataset(config, supervised_only=supervised_only),
        config,
        global_batch=global_batch,
        seed=seed,
        start_step=start_step,
        device=device,
        supervised_only=supervised_only,
        rank=rank,
        world_size=world_size,
        normalize=normalize,
    )


def take(config: DataConfig, name: str, steps: int, **options: Any) -> list[Batch]:
    with open_loader(config, name, **options) as loader:
        return [next(loader) for _ in range(steps)]


def delivered(batch: Batch) -> tuple[torch.Tensor, ...]:
    """The fields that a loader fills in for a whole batch."""
    return batch[:6]  # type: ignore[return-value]


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(delivered(a), delivered(b), strict=True))
