"""The loaders against the field's: a PIL and torchvision DataLoader with two workers, doing the same work.

Drawn photographs of 500x375 pixels as JPEG of about 60 KB, masks as palette PNG; crops of 320 pixels, batches of 8.
The labelled stream gives normalised images and masks; the unlabelled one gives normalised weak and strong views and
what CutMix needs. Every provider has two workers (threads or processes), and all are timed in turns.
"""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.provenance import machine
from benchmarks.speed.data_baseline import baseline_loader
from benchmarks.speed.measure import percentiles
from benchmarks.speed.photographs import write_list, write_photographs
from benchmarks.speed.selection import Selection
from maskmatch.common.device import find_device
from maskmatch.config import DataConfig
from maskmatch.data import choose_loader, load_dataset, make_loader

COLUMNS = (
    "stream",
    "provider",
    "cache",
    "default",
    "images_per_second",
    "over_baseline",
    "ms_p20",
    "ms_p50",
    "ms_p80",
)
PROVIDERS = ("baseline", "torch", "dali")
SHAPES = ()  # one size of image
IMAGES = 64
HEIGHT, WIDTH = 375, 500
CROP = 320
BATCH = 8
WORKERS = 2
CLASSES = 21
ROUNDS = 7
BATCHES = 12  # timed in a round
AHEAD = 8  # taken untimed before, so that nothing is timed that was prepared in the pause
PAUSE = 1.0  # seconds between two rounds, in which a provider fills its queue and comes to rest
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run(selection: Selection) -> Iterator[dict[str, Any]]:
    """One record for each stream, provider and cache."""
    device, providers = selection.device, selection.chosen_providers(PROVIDERS)
    place = find_device(device, "--device")
    if selection.profile:
        selection.skip("data, --profile: the work is done in other threads and processes")
    without_dali = choose_loader("dali", place, only_preferred=True).instead
    if "dali" in providers and without_dali:
        selection.skip(f"data, dali: {without_dali}")
        providers.remove("dali")
    shared = machine(device) | {"area": "data", "shape": f"{BATCH}x3x{CROP}x{CROP}", "workers": WORKERS}
    auto = choose_loader("auto", place).name
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for stream in ("unlabeled", "labeled"):
            times = _times(Path(folder), stream, device, providers)
            baseline = statistics.median(times.get(("baseline", "none"), [math.nan]))
            for (provider, cache), seconds in times.items():
                batch = statistics.median(seconds)
                yield (
                    shared
                    | percentiles([1e3 * s for s in seconds])
                    | {"stream": stream, "provider": provider, "cache": cache, "default": provider == auto}
                    | {
                        "images_per_second": BATCH / batch,
                        "over_baseline": None if math.isnan(baseline) else baseline / batch,
                    }
                )


def write_data(root: Path) -> None:
    """Images with masks and the lists of both streams, as a folder data set."""
    lines = write_photographs(root, IMAGES, HEIGHT, WIDTH, CLASSES)
    # The unlabelled stream is timed with a labelled one that costs next to nothing.
    Image.new("RGB", (1, 1)).save(root / "images/dot.png")
    Image.new("L", (1, 1)).save(root / "masks/dot.png")
    write_list(root / "all.txt", lines)
    write_list(root / "dot.txt", ["images/dot.png masks/dot.png"])


def _times(root: Path, stream: str, device: str, providers: list[str]) -> dict[tuple[str, str], list[float]]:
    """Seconds a batch of every provider, one value a round; all providers in every round."""
    with ExitStack() as stack:
        batches: dict[tuple[str, str], Iterator[Any]] = {}
        for provider in providers:
            if provider == "baseline":
                batches[provider, "none"] = iter(baseline_loader(root, stream, BATCH, CROP, WORKERS, MEAN, STD))
                continue
            for cache in ("none", "ram"):
                batches[provider, cache] = _ours(stack, root, stream, provider, cache, device)
        times: dict[tuple[str, str], list[float]] = {name: [] for name in batches}
        for _ in range(2 * IMAGES // BATCH):  # fills the caches and warms everything up
            for iterator in batches.values():
                next(iterator)
        for _ in range(ROUNDS):
            for name, iterator in batches.items():
                time.sleep(PAUSE)
                times[name].append(_seconds_a_batch(iterator))
    return times


def _seconds_a_batch(batches: Iterator[Any]) -> float:
    for _ in range(AHEAD):
        next(batches)
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return (time.perf_counter() - start) / BATCHES


def _ours(stack: ExitStack, root: Path, stream: str, provider: str, cache: str, device: str) -> Iterator[Any]:
    """Normalised batches of a stream; UniMatch's settings of VOC."""
    config = DataConfig(
        name="folder", root=str(root), labeled="all.txt" if stream == "labeled" else "dot.txt", unlabeled="all.txt",
        val="all.txt", num_classes=CLASSES, crop_size=CROP, scale_range=(0.5, 2.0),
        jitter_strengths=(0.5, 0.5, 0.5, 0.25), grayscale=0.2, workers=WORKERS, loader=provider, cache=cache,  # type: ignore[arg-type]
    )  # fmt: skip
    supervised = stream == "labeled"
    return stack.enter_context(
        make_loader(
            load_dataset(config, supervised_only=supervised),
            config,
            global_batch=BATCH,
            seed=random.randrange(2**31),
            device=find_device(device, "--device"),
            supervised_only=supervised,
            normalize=(MEAN, STD),
        )
    )
