"""The earlier run of a folder that has more masks now: the new one begins with its best weights, where they fit.

That run is the newest one that is complete, has the same `data.root`, and knew fewer of the masks; among the folders
beside the new run's and in runs/. It is only read. Its weights have seen the masks that it learned from, so these are
not held out again: a figure on them would flatter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from maskmatch.common.errors import UserError
from maskmatch.config import Config, flat
from maskmatch.data import Pair, load_dataset
from maskmatch.planning.choice import Choice
from maskmatch.run_files.config_file import read_config
from maskmatch.run_files.versions import data_of

RUNS = Path("runs")
SAME = ("model.arch", "model.encoder", "model.output_stride")
"""What makes a network another one."""


class Earlier(NamedTuple):
    """A run that is over, and the images whose masks it has seen."""

    run: Path
    config: Config
    learned: frozenset[Path]
    known: frozenset[Path]  # those of val too


def earlier_runs(root: Path, places: Sequence[Path] = (RUNS,)) -> Iterator[Earlier]:
    """Complete runs of the folder `root` that lie in `places`, the newest first; any that cannot be read is none."""
    found = [folder for place in places if place.is_dir() for folder in place.iterdir() if _is_of(folder, root)]
    for run in sorted(dict.fromkeys(found), key=lambda run: (run / "summary.json").stat().st_mtime, reverse=True):
        with suppress(UserError):
            config = read_config(run / "config.yaml")
            data = load_dataset(data_of(run, config.data), supervised_only=True, incomplete=True)
            learned = frozenset(pair.image.resolve() for pair in data.labeled)
            yield Earlier(run, config, learned, learned | {pair.image.resolve() for pair in data.val})


def with_fewer_masks(runs: Iterable[Earlier], masked: Sequence[Pair]) -> tuple[Earlier | None, int]:
    """The newest of the runs that did not know some of the `masked` images, and how many."""
    for run in runs:
        if added := sum(pair.image.resolve() not in run.known for pair in masked):
            return run, added
    return None, 0


def begin_with(earlier: Earlier, added: int, options: Mapping[str, Any], classes: int) -> tuple[list[Choice], str]:
    """The choice to begin with its weights, or else a line that says why not.

    Args:
        earlier: the run.
        added: how many masks it did not know.
        options: of the plan, by full name.
        classes: how many there are now.
    """
    run, before = earlier.run, flat(earlier.config)
    masks = f"{added} {'mask was' if added == 1 else 'masks were'} added since"
    if why := _misfit(earlier, before, options, classes):
        return [], f"{masks} {run}, whose weights are not taken: {why}"
    reason = f"{masks}: its best weights; none of the masks that it learned from is in val"
    if options.get("train.baseline_every"):
        own = (run / "checkpoints/baseline").is_dir()
        same = "from the same" if earlier.config.method.supervised_only else "from them too, so it is above that"
        reason += f"; labelled alone goes on {'from its own' if own else same}"
    return [Choice("init_from", str(run), reason)], ""


def _misfit(earlier: Earlier, before: Mapping[str, Any], options: Mapping[str, Any], classes: int) -> str:
    """Why its network is none for this plan; nothing where it is one."""
    usual = flat(Config())
    for name in SAME:
        now = options.get(name, usual[name])
        if str(before[name]).lower() != str(now).lower():
            return f"{name} was {before[name]}, and is {now} now"
    if before["data.num_classes"] != classes:
        return f"there were {before['data.num_classes']} classes, and there are {classes} now"
    values = before["data.mask_values"], options.get("data.mask_values")
    if not _alike(*values):
        return f"its classes are stored as {values[0] or 'their numbers'}, and now as {values[1] or 'their numbers'}"
    if not (earlier.run / "checkpoints/best/teacher.safetensors").is_file():
        return "they are gone"
    return ""


def _alike(one: Any, other: Any) -> bool:
    """Of mask values, tuples or lists."""
    return json.dumps(one) == json.dumps(other)


def _is_of(folder: Path, root: Path) -> bool:
    """Whether a complete run of the folder `root` lies there."""
    if not (folder / "summary.json").is_file():
        return False
    with suppress(OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        its = Path(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]["root"])
        with suppress(OSError, ValueError, KeyError, TypeError):
            its = Path(json.loads((folder / "environment.json").read_text())["training"]["folder"]) / its
        return its.resolve() == root.resolve()
    return False
