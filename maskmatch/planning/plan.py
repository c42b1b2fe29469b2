"""The choices of a plan, each with its reason, and the YAML that a person can edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from maskmatch.common.errors import UserError
from maskmatch.data.dataset import Pair
from maskmatch.planning.choice import Choice
from maskmatch.planning.data_choices import data_choices
from maskmatch.planning.views import crop_and_scales


@dataclass(frozen=True)
class Plan:
    """What was chosen, and the held-out images apart from those to learn from."""

    choices: list[Choice]
    lists: dict[str, list[Pair]]  # part -> images
    notes: list[str] = field(default_factory=list)  # what was left out or is strange

    def lines(self) -> list[str]:
        """A line a choice, and a line a note, for the terminal."""
        choices = [f"{one.option} {_flow(one.value)}: {_plain(one.reason)}" for one in self.choices]
        return [*choices, *(f"note: {_plain(note)}" for note in self.notes)]

    def to_yaml(self) -> str:
        """A file of options for `maskmatch.train --config`, each with its reason as a comment."""
        lines, section = [], ""
        for one in sorted(self.choices, key=lambda choice: choice.option.split(".")[0]):
            above, name = one.option.split(".", 1)
            if above != section:
                lines.append(f"{above}:")
                section = above
            lines.append(f"  {name}: {_flow(one.value)}  # {_plain(one.reason)}")
        return "\n".join(lines) + "\n"


def make_plan(root: Path, lists: Path, yours: Mapping[str, Any] | None = None, *, gpu: bool = False) -> Plan:
    """Choose from what lies in `root`; `lists` is the folder that the held-out lists will be written to.

    Args:
        yours: full name of an option -> the user's value, which is kept.
        gpu: whether the network will be trained on one.

    Raises:
        UserError: no masks, or masks that do not store a number for each class.
    """
    kept = dict(yours or {})
    if kept.get("data.name", "folder") != "folder":
        raise UserError(f"data.name: expected folder, as {kept['data.name']} has its own settings, which train takes")
    data = data_choices(root, lists, kept)
    views = crop_and_scales(data.sizes, data.sides, data.names, stride=4, largest=320 if gpu else 128)
    choices = [*data.choices, *views, *_of_network(gpu=gpu), *_of_training()]
    chosen = [Choice(one.option, kept.pop(one.option), "(yours)") if one.option in kept else one for one in choices]
    return Plan(chosen + [Choice(option, value, "(yours)") for option, value in kept.items()], data.lists, data.notes)


def _of_network(*, gpu: bool) -> list[Choice]:
    where = "a GPU" if gpu else "a CPU"
    encoder = "resnet50" if gpu else "tu-tf_efficientnet_lite0"
    return [
        Choice("model.arch", "deeplabv3plus", f"for {where}"),
        Choice("model.encoder", encoder, f"for {where}; from scratch unless model.encoder_weights names a file"),
        Choice("train.batch_size", 4, "labelled images a step, and as many without masks"),
        Choice("train.lr", 2e-4, "for a batch of 4"),
        Choice("train.lr_batch_size", 4, "the batch that the learning rate is for"),
        Choice("train.head_lr_multiplier", 2.5, "the head starts at random"),
    ]


def _of_training() -> list[Choice]:
    return [
        Choice("train.baseline_every", 2, "labelled alone is held beside the method, and the better handed over"),
        Choice("train.act_on_warnings", True, "a run that collapses does something about it"),
    ]


def _flow(value: Any) -> str:
    """A value as YAML on one line, with the letters of all scripts as they are, and escapes for what is no letter."""
    for as_they_are in (True, False):
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=as_they_are, width=10**6)
        text = str(text).removesuffix("\n").removesuffix("\n...")
        if text.isprintable():
            break
    return text


def _plain(text: str) -> str:
    """A reason on one line, without what a terminal would obey or YAML would not take: names of files may be any."""
    text = " ".join(text.split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
