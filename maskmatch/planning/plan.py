"""The choices of a plan, each with its reason, and the YAML that a person can edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskmatch.common.errors import UserError
from maskmatch.data.dataset import Pair
from maskmatch.planning.choice import Choice
from maskmatch.planning.data_choices import data_choices

CHOSEN_HERE = {f"data.{name}" for name in ("name", "split", "labeled", "unlabeled", "val")}


@dataclass(frozen=True)
class Plan:
    """What was chosen, and the held-out images apart from those to learn from."""

    choices: list[Choice]
    lists: dict[str, list[Pair]]  # part -> images

    def lines(self) -> list[str]:
        """A line a choice, for the terminal."""
        return [f"{one.option} {_flow(one.value)}: {one.reason}" for one in self.choices]

    def to_yaml(self) -> str:
        """A file of options for `maskmatch.train --config`, each with its reason as a comment."""
        lines, section = [], ""
        for one in sorted(self.choices, key=lambda choice: choice.option.split(".")[0]):
            above, name = one.option.split(".", 1)
            if above != section:
                lines.append(f"{above}:")
                section = above
            reason = " ".join(one.reason.split())
            lines.append(f"  {name}: {_flow(one.value)}  # {reason}")
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
    if clash := sorted(CHOSEN_HERE & kept.keys()):
        raise UserError(f"{clash[0]}: expected none, as the plan finds it by itself; train takes it without a plan")
    data = data_choices(root, lists, kept)
    choices = [*data.choices, *_of_network(data.stored.side, gpu=gpu), *_of_training()]
    chosen = [Choice(one.option, kept.pop(one.option), "(yours)") if one.option in kept else one for one in choices]
    return Plan(chosen + [Choice(option, value, "(yours)") for option, value in kept.items()], data.lists)


def _of_network(side: int, *, gpu: bool) -> list[Choice]:
    crop = 320 if gpu and side >= 240 else 128 if side >= 96 else 64
    where = "a GPU" if gpu else "a CPU"
    encoder = "resnet50" if gpu else "tu-tf_efficientnet_lite0"
    return [
        Choice("data.crop_size", crop, f"for {where}; the masks' short side is {side} pixels"),
        Choice("model.arch", "deeplabv3plus", f"for {where}"),
        Choice("model.encoder", encoder, f"for {where}; from scratch unless model.encoder_weights names a file"),
        Choice("method.patch_size", crop // 8, "an eighth of the crop"),
        Choice("method.mask_ratio", 0.7, "as the public configurations hide"),
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
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
