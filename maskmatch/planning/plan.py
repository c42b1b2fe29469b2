"""A plan: the choices, each with its reason, and the YAML that a person can edit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.config.validation import nested
from maskmatch.data import load_dataset
from maskmatch.data.dataset import PARTS, Pair
from maskmatch.data.listing.lists import format_list
from maskmatch.planning.choice import Choice, flow, plain
from maskmatch.planning.data_choices import DataChoices, data_choices
from maskmatch.planning.earlier import RUNS, begin_with, earlier_runs
from maskmatch.planning.machine import Machine, largest_crop, of_machine, of_training, this_machine
from maskmatch.planning.memory import of_memory
from maskmatch.planning.steps import of_budget
from maskmatch.planning.views import crop_and_scales
from maskmatch.run_files.config_file import config_of

STRIDE = 4  # of the logits
LENGTH = ("train.steps", "train.epochs")


@dataclass(frozen=True)
class Plan:
    """What was chosen, and the held-out images apart from those to learn from."""

    choices: list[Choice]
    lists: dict[str, list[Pair]]  # part -> images
    notes: list[str] = field(default_factory=list)  # what was left out or is strange
    root: Path = Path()  # the user's folder
    folder: Path = Path("plan-lists")  # where the lists will be

    @property
    def options(self) -> dict[str, Any]:
        """By full name."""
        return {one.option: one.value for one in self.choices}

    def lines(self) -> list[str]:
        """A line a choice, and a line a note, for the terminal."""
        choices = [f"{one.option} {flow(one.value)}: {plain(one.reason)}" for one in self.choices]
        return [*choices, *(f"note: {plain(note)}" for note in self.notes)]

    def to_yaml(self) -> str:
        """A file of options for `maskmatch.train --config`, each with its reason as a comment."""
        lines, section = [], ""
        for one in sorted(self.choices, key=lambda choice: choice.option.rpartition(".")[0]):
            above, _, name = one.option.rpartition(".")
            parts = above.split(".") if above else []
            if above != section:
                known = section.split(".") if section else []
                lines += ["  " * i + f"{part}:" for i, part in enumerate(parts) if known[: i + 1] != parts[: i + 1]]
                section = above
            lines.append("  " * len(parts) + f"{name}: {flow(one.value)}  # {plain(one.reason)}")
        return "\n".join(lines) + "\n"

    def write(self, file: Path) -> None:
        """The YAML, and the lists that it names into their new folder."""
        self.write_lists(self.folder)
        file.write_text(self.to_yaml(), encoding="utf-8", errors="surrogateescape")

    def write_lists(self, folder: Path) -> None:
        """Into a new folder, a file a part."""
        folder.mkdir(parents=True)
        for part, pairs in self.lists.items():
            text = format_list(pairs, self.root)
            (folder / f"{part}.txt").write_text(text, encoding="utf-8", errors="surrogateescape")


def make_plan(
    root: Path,
    lists: Path,
    yours: Mapping[str, Any] | None = None,
    *,
    machine: Machine | None = None,
    places: Sequence[Path] = (RUNS,),
) -> Plan:
    """Choose from what lies in `root` and from what the machine is; nothing is tried out yet.

    Args:
        root: the user's folder.
        lists: the folder that the held-out lists will be written to.
        yours: full name of an option -> the user's value, which is kept.
        machine: that the run is for; this one, where none is named.
        places: folders in which the folder's earlier runs are.

    Raises:
        UserError: no masks, or masks that cannot be read as classes.
    """
    kept, machine = dict(yours or {}), machine or this_machine()
    if kept.get("data.name", "folder") != "folder":
        raise UserError(f"data.name: expected folder, as {kept['data.name']} has its own settings, which train takes")
    data = data_choices(root, lists, kept, () if "init_from" in kept else earlier_runs(root, places))
    side = int(np.median(data.sizes.min(1)))
    views = crop_and_scales(data.sizes, data.sides, data.names, stride=STRIDE, largest=largest_crop(machine, side))
    supervised = any(one.option == "method.supervised_only" for one in data.choices)
    choices = [*data.choices, *_val(data, lists, kept), *views, *of_machine(machine, side, kept)]
    choices += of_training(supervised=supervised)
    chosen = [Choice(one.option, kept.pop(one.option), "(yours)") if one.option in kept else one for one in choices]
    others = [Choice(option, value, "(yours)") for option, value in kept.items()]
    plan = Plan(chosen + others, data.lists, data.notes, root, lists)
    if not data.earlier:
        return plan
    begin, note = begin_with(data.earlier, data.added, plan.options, len(data.names))
    return replace(plan, choices=plan.choices + begin, notes=plan.notes + [note] * bool(note))


def _val(data: DataChoices, lists: Path, yours: Mapping[str, Any]) -> list[Choice]:
    """Where no mask can be spared, those that are learned from; a run needs some to look at."""
    if "val" in data.lists or "data.val" in yours or "data.split" in yours:
        return []
    same = str(yours.get("data.labeled", lists / "labeled.txt"))
    return [Choice("data.val", same, "the masks that are learned from, as none can be spared: their mIoU flatters")]


def tried_out(plan: Plan, machine: Machine, budget: str | None, started: float) -> Plan:
    """The plan with what only a trial can say: whether a step fits into the memory, and how many fit into the budget.

    Args:
        plan: as `make_plan` returns it.
        machine: this one.
        budget: a time such as 20m, or None.
        started: time.monotonic() when the command began.

    Raises:
        UserError: the budget is no time, the network does not fit, or an image cannot be read.
    """
    with tempfile.TemporaryDirectory() as place:
        lists = Path(place) / "lists"
        plan.write_lists(lists)
        files = {str(plan.folder / f"{part}.txt"): str(lists / f"{part}.txt") for part in plan.lists}
        here = {f"data.{part}": files[name] for part in PARTS if (name := plan.options.get(f"data.{part}")) in files}
        config = config_of(nested(plan.options | here))
        data = load_dataset(config.data, supervised_only=config.method.supervised_only)
        found = of_memory(config, data.num_classes, machine.free)
        changes = {one.option.split(".")[1]: one.value for one in found}
        if not set(LENGTH) & plan.options.keys():
            config = replace(config, train=replace(config.train, **changes))
            found.append(of_budget(config, data, budget, machine, started))
    changed = {one.option for one in found}
    return replace(plan, choices=[one for one in plan.choices if one.option not in changed] + found)
