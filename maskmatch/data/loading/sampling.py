"""Which images a step shows and how each is augmented, as pure functions of (seed, stream, epoch, sample id).

Nothing is remembered from step to step, so a run resumes exactly from a step number, whatever decodes its images.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from maskmatch.config import DataConfig

LABELED, UNLABELED = 0, 1
"""The two streams; they are independent of each other."""

_ORDER, _PARAMETERS = 0, 1


class Sample(NamedTuple):
    """One image of a batch and every random choice about it."""

    id: int  # position in the list
    epoch: int
    scale: float  # random resize, relative to the image
    crop_y: float  # position of the crop, 0 = top .. 1 = bottom
    crop_x: float
    flip: bool
    jitter: tuple[tuple[str, float], ...]  # (operation, factor) in the order of application, empty for none
    grayscale: bool
    blur: float  # sigma in pixels, 0 for none
    seed: int  # of what the method draws for this sample, in [0, 2^63)


def samples_of_step(
    step: int,
    *,
    global_batch: int,
    length: int,
    seed: int,
    stream: int,
    config: DataConfig,
    rank: int = 0,
    world_size: int = 1,
) -> list[Sample]:
    """Part `rank` of the step's global batch.

    The stream is one endless sequence, a global batch its next `global_batch` samples, and a process takes a
    contiguous part of it, if need be one sample more than another: the processes together show the same
    whatever their number is.
    """
    samples = []
    first, end = (step * global_batch + part * global_batch // world_size for part in (rank, rank + 1))
    for position in range(first, end):
        epoch, place = divmod(position, length)
        index = int(epoch_order(seed, stream, epoch, length)[place])
        samples.append(draw_sample(index, epoch, seed=seed, stream=stream, config=config))
    return samples


@lru_cache(maxsize=8)
def epoch_order(seed: int, stream: int, epoch: int, length: int) -> np.ndarray:
    """The permutation of range(length) in which an epoch shows the list.

    It does not begin with the image that the epoch before ended with, so that the neighbours 2i and 2i+1 of a
    batch, which CutMix pairs, are different images. (With two images no pair lies across an epoch's border.)
    """
    order = _permutation(seed, stream, epoch, length)
    if length > 2 and epoch > 0 and order[0] == _permutation(seed, stream, epoch - 1, length)[-1]:
        order[[0, 1]] = order[[1, 0]]
    order.setflags(write=False)
    return order


def _permutation(seed: int, stream: int, epoch: int, length: int) -> np.ndarray:
    return _generator(seed, stream, _ORDER, epoch, 0).permutation(length)


def draw_sample(index: int, epoch: int, *, seed: int, stream: int, config: DataConfig) -> Sample:
    """Every random choice about one showing of one image.

    As many numbers are drawn whatever the options are, so that one option does not change another's draws.
    """
    rng = _generator(seed, stream, _PARAMETERS, epoch, index)
    u = rng.random(16).tolist()  # Python's own numbers, whose arithmetic is faster than that of numpy's scalars
    low, high = config.scale_range
    *strengths, hue = config.jitter_strengths
    names = ("brightness", "contrast", "saturation")
    factors = {
        name: max(0.0, 1 + (2 * draw - 1) * strength)
        for name, draw, strength in zip(names, u[6:9], strengths, strict=True)
    }
    factors["hue"] = (2 * u[9] - 1) * hue
    order = sorted(zip(u[10:14], factors, strict=True))
    return Sample(
        id=index,
        epoch=epoch,
        scale=low + (high - low) * u[0],
        crop_y=u[1],
        crop_x=u[2],
        flip=u[3] < config.flip,
        jitter=tuple((name, factors[name]) for _, name in order) if u[4] < config.jitter else (),
        grayscale=u[5] < config.grayscale,
        blur=0.1 + 1.9 * u[15] if u[14] < config.blur else 0.0,
        seed=int(rng.integers(2**63 - 1)),
    )


def _generator(seed: int, stream: int, purpose: int, epoch: int, index: int) -> np.random.Generator:
    """Philox keyed by (seed, stream); the other coordinates are counter words that its steps never reach."""
    key = np.array([seed % 2**64, stream], np.uint64)
    counter = np.array([0, purpose, epoch, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
