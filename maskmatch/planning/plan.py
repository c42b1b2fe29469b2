"""The choices of a plan, each with its reason, and the YAML that a person can edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_lines
from maskmatch.data.dataset import Pair
from maskmatch.data.listing.class_names import CLASSES_FILE
from maskmatch.planning.choice import Choice, flow
from maskmatch.planning.folder import PATTERNS, Found, Stored, find, stored_by
from maskmatch.planning.machine import of_network, of_training

RARE = 0.01  # share of the labelled pixels
FLOOD = 0.6
CHOSEN_HERE = {f"data.{name}" for name in ("name", "split", "labeled", "unlabeled", "val")}
HELD_OUT = 5  # one mask in so many, at most


@dataclass(frozen=True)
class Plan:
    """What was chosen, and the held-out images apart from those to learn from."""

    choices: list[Choice]
    lists: dict[str, list[Pair]]  # part -> images

    def lines(self) -> list[str]:
        """A line a choice, for the terminal."""
        return [f"{one.option} {flow(one.value)}: {one.reason}" for one in self.choices]

    def to_yaml(self) -> str:
        """A file of options for `maskmatch.train --config`, each with its reason as a comment."""
        lines, section = [], ""
        for one in sorted(self.choices, key=lambda choice: choice.option.split(".")[0]):
            above, name = one.option.split(".", 1)
            if above != section:
                lines.append(f"{above}:")
                section = above
            reason = " ".join(one.reason.split())
            lines.append(f"  {name}: {flow(one.value)}  # {reason}")
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
    given = (kept.get("data.images"), kept.get("data.masks"))
    found = find(root, [(given[0] or "images/**/*", given[1] or "masks/**/*")] if any(given) else PATTERNS)
    stored = stored_by(found.labeled)
    held = held_out(stored.shown)
    parts = {
        "labeled": [pair for i, pair in enumerate(found.labeled) if i not in held],
        "unlabeled": found.unlabeled,
        "val": [pair for i, pair in enumerate(found.labeled) if i in held],
    }
    parts = {part: pairs for part, pairs in parts.items() if pairs}
    choices = [
        *_of_lists(root, lists, found, parts),
        *_of_masks(root, stored),
        *of_network(stored.side, gpu=gpu),
        *of_training(),
    ]
    if not found.unlabeled:
        choices.append(Choice("method.supervised_only", True, "every image has a mask"))
    chosen = [Choice(one.option, kept.pop(one.option), "(yours)") if one.option in kept else one for one in choices]
    return Plan(chosen + [Choice(option, value, "(yours)") for option, value in kept.items()], parts)


def held_out(shown: np.ndarray) -> set[int]:
    """Indices of the masks to hold out, at most a fifth; every class keeps a mask to learn from.

    `shown`, bool [N, C], says which classes each mask shows. Masks of the rarest classes come first.
    """
    left, held = shown.sum(0), set[int]()
    seen = np.zeros(shown.shape[1], bool)
    while len(held) < len(shown) // HELD_OUT:
        free = [i for i in range(len(shown)) if i not in held and (left - shown[i] > 0)[shown[i]].all()]
        if not free:
            break
        best = max(free, key=lambda i: (((shown[i] & ~seen) / np.maximum(1, shown.sum(0))).sum(), -i))
        held.add(best)
        seen |= shown[best]
        left = left - shown[best]
    return held


def _of_lists(root: Path, lists: Path, found: Found, parts: dict[str, list[Pair]]) -> list[Choice]:
    what = f"{len(found.labeled)} of {len(found.labeled) + len(found.unlabeled)} images have a mask"
    choices = [
        Choice("data.name", "folder", what),
        Choice("data.root", str(root), "as given"),
        Choice("data.images", found.images, "where the images lie"),
        Choice("data.masks", found.masks, "where their masks lie"),
    ]
    reasons = {
        "labeled": f"{len(parts['labeled'])} masks to learn from",
        "unlabeled": f"{len(found.unlabeled)} images without a mask",
        "val": f"{len(parts.get('val', ()))} masks held out, at most a fifth: few masks make an unsure figure",
    }
    return choices + [Choice(f"data.{part}", str(lists / f"{part}.txt"), reasons[part]) for part in parts]


def _of_masks(root: Path, stored: Stored) -> list[Choice]:
    choices = []
    file = root / CLASSES_FILE
    names = [line for line in read_lines(file, "one class name on a line") if line.strip()] if file.is_file() else []
    named = len(names)
    if max(stored.values) >= (named or len(stored.values)):
        if named and named != len(stored.values):
            raise UserError(f"{file}: expected {len(stored.values)} names, as masks store so many values, got {named}")
        values = f"masks store {', '.join(map(str, stored.values[:8]))}"
        choices.append(Choice("data.mask_values", stored.values, values))
    if not named:
        choices.append(Choice("data.num_classes", len(stored.values), f"values in the masks, no {CLASSES_FILE}"))
    if stored.ignored:
        choices.append(Choice("data.ignore_values", [255], "255 stands among the classes"))
    least, most = stored.shares.min(), stored.shares.max()
    if least < RARE or most > FLOOD:
        reason = f"classes have {100 * least:.1f} to {100 * most:.0f} % of the labelled pixels"
        choices += [Choice("method.logit_adjustment", 0.5, reason), Choice("method.class_thresholds", True, reason)]
    return choices
