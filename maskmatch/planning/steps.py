"""How many steps fit into a budget of time, validations and all else included."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import re
import time
from pathlib import Path

import torch

from maskmatch.common.errors import UserError
from maskmatch.common.text_files import write_text
from maskmatch.common.user_cache import user_cache
from maskmatch.common.version import __version__
from maskmatch.config import Config, flat
from maskmatch.data import Dataset
from maskmatch.planning.choice import Choice
from maskmatch.planning.machine import Machine
from maskmatch.planning.timing import Times, measure
from maskmatch.training.finish import PICTURES
from maskmatch.training.handover import LOOKED_AT

DEFAULT = "1h"
UNITS = {"s": 1, "m": 60, "h": 3600}
PLANNED = 0.9  # share of the budget: a machine is not always as fast as while it was timed
VALIDATIONS = 10  # a tenth of the steps lies between them
PASSES = 100  # over all images; more would teach little
FEWEST, ENOUGH = 20, 1000  # steps; however few images there are


def seconds_of(budget: str) -> float:
    """Of `90s`, `20m` or `2h`.

    Raises:
        UserError: it is no such thing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip(), re.ASCII)
    if not found or not float(found[1]):
        raise UserError(f"budget: expected a time such as 90s, 20m or 2h, got {budget}")
    return float(found[1]) * UNITS[found[2]]


def of_budget(config: Config, data: Dataset, budget: str | None, machine: Machine, started: float) -> Choice:
    """The number of steps; the same the next time, as it is kept in the user's cache.

    Args:
        config: of the run; its lists are there.
        data: what they hold.
        budget: as a person writes it, or None for an hour.
        machine: that it is to run on.
        started: time.monotonic() when the command began.

    Raises:
        UserError: as `maskmatch.training.train`, before step 1.
    """
    seconds = seconds_of(budget or DEFAULT)
    file = user_cache() / "steps" / f"{_key(config, data, seconds, machine)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or broken: timed again
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Choice("train.steps", kept["steps"], f"{kept['reason']}, as timed before")
    times = measure(config)
    left = PLANNED * seconds - (time.monotonic() - started)
    steps, reason = _steps(config, data, times, left)
    reason = f"for a budget of {budget or DEFAULT + ', the default'}: {reason}"
    with contextlib.suppress(OSError):  # a home that cannot be written to
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"steps": steps, "reason": reason}))
    return Choice("train.steps", steps, reason)


def _steps(config: Config, data: Dataset, times: Times, left: float) -> tuple[int, str]:
    """For the seconds that are left; and why."""
    networks = 3 if config.train.baseline_every and not config.method.supervised_only else 2
    validation = networks * len(data.val) * times.image
    described = min(LOOKED_AT, len(data.unlabeled)) + min(LOOKED_AT, len(data.labeled))  # at the end, what to label
    end = (2 * len(data.val) + described + PICTURES) * times.image + 2 * times.save
    fits = (left - times.build - end - VALIDATIONS * (validation + times.save)) / times.step
    images = len(data.labeled) + len(data.unlabeled)
    enough = max(ENOUGH, PASSES * images // (2 * config.train.batch_size * config.train.accumulate))
    reason = f"a step takes {1e3 * times.step:.0f} ms, a validation {validation:.1f} s"
    if fits < FEWEST:
        return FEWEST, f"{reason}; fewer than {FEWEST} steps would teach nothing, so it takes longer"
    if fits > enough:
        return rounded(enough), f"{reason}; more than {rounded(enough)} steps would teach little, so it ends sooner"
    return rounded(fits), reason


def rounded(steps: float) -> int:
    """Down to two significant digits."""
    unit = 10 ** max(0, math.floor(math.log10(steps)) - 1)
    return int(steps // unit) * unit


def _key(config: Config, data: Dataset, seconds: float, machine: Machine) -> str:
    """A fingerprint of what the number of steps follows from: images, settings, budget and machine."""
    settings = {name: value for name, value in flat(config).items() if not name.startswith("data.") or name in VIEWS}
    parts = {"labeled": data.labeled, "unlabeled": data.unlabeled, "val": data.val}
    files = [[part, *map(_stamp, filter(None, pair))] for part, pairs in parts.items() for pair in pairs]
    hardware = [machine.name, platform.processor(), platform.node(), torch.get_num_threads()]
    what = [__version__, torch.__version__, seconds, hardware, settings, files]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode(errors="surrogateescape")).hexdigest()


VIEWS = {f"data.{name}" for name in ("crop_size", "scale_range", "blur", "workers", "cache", "loader")}
"""Options of the data that a step's time depends on, beside the images themselves."""


def _stamp(path: Path) -> list[object]:
    about = path.stat()
    return [str(path.resolve()), about.st_size, about.st_mtime_ns]
