"""From listed images to training batches: sampling, decoding and cropping, views, and the loader that is ahead."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data.dataset import Dataset
from maskmatch.data.decoding.limits import free_memory
from maskmatch.data.loading.loader import BatchMaker, Decoder, Loader
from maskmatch.data.loading.loader_choice import choose_loader, dali_installed
from maskmatch.data.loading.source import MEMORY_SHARE, Source
from maskmatch.data.loading.torch_decoder import TorchDecoder
from maskmatch.data.loading.views import Normalize

__all__ = ["Loader", "choose_loader", "dali_installed", "make_loader"]


def make_loader(
    dataset: Dataset,
    config: DataConfig,
    *,
    global_batch: int,
    seed: int,
    start_step: int = 0,
    device: torch.device,
    supervised_only: bool,
    rank: int = 0,
    world_size: int = 1,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    measured: Callable[[int], bool] = lambda step: False,
    left_out: Collection[Path] = (),
) -> Loader:
    """An endless iterator of batches that begins with that of step `start_step`; close it after use.

    A step's batch follows from the lists, `config`, `global_batch`, `seed` and the step alone. With
    `supervised_only` the batch's last four fields are None.

    `global_batch` is the number of labelled images (and of unlabelled ones) that all `world_size` processes get
    in a step: the same for every number of processes. Process `rank` gets a contiguous part of them, where their
    number does not divide it one image more than others.

    Batches of the steps for which `measured` says so have the `truth` of their unlabelled images, where it is known.

    Images are uint8, as `maskmatch.method` takes them. With `normalize`, a (mean, std) of three channels in units of
    [0, 1] images, they are float32, (image / 255 - mean) / std, to be fed to a network as they are.

    The files of `left_out` are passed over as those that break with `config.on_error` skip.

    Raises UserError where `config.loader` cannot work here, and where some process would get no image; the loader
    raises it, naming the file, where a file cannot be read.
    """
    if global_batch < world_size:
        raise UserError(
            f"global_batch: expected at least one image for each of {world_size} processes, got {global_batch}"
        )
    crop = config.crop
    name = choose_loader(config.loader, device).name
    budget = int(MEMORY_SHARE * free_memory()) // world_size if config.cache == "ram" else 0
    source = Source(dataset, budget=budget)
    workers = _default_workers(device) if config.workers is None else config.workers
    decode: Decoder = TorchDecoder(crop, source)
    if name == "dali":
        from maskmatch.data.loading.dali_decoder import DaliDecoder

        most = math.ceil(global_batch / world_size) * (1 if supervised_only else 2)
        decode = DaliDecoder(crop, source, batch_size=most, threads=max(1, workers), device=device)
    make = BatchMaker(
        dataset,
        config,
        source,
        decode,
        global_batch=global_batch,
        seed=seed,
        device=device,
        supervised_only=supervised_only,
        rank=rank,
        world_size=world_size,
        normalize=Normalize(*normalize, device) if normalize else None,
        measured=measured,
    )
    make.broken.update(left_out)
    return Loader(name, make, start_step=start_step, workers=workers, device=device)


def _default_workers(device: torch.device) -> int:
    """None where the networks' threads already have every core: as they wait for each other, all would wait for it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" and torch.get_num_threads() >= cores else 1
