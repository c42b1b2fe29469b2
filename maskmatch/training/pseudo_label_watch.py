"""How the pseudo-labels fare, class by class; and a warning where they stop teaching anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.counting import count_each
from maskmatch.method import PseudoLabels

ONE_CLASS = 0.99  # share of the confident pixels that no class should exceed,
COVERED = 0.05  # once this share is confident: the very first ones may well be of one class
EMPTY_STEPS = 50  # steps without a confident pixel until it is said
LOST_STEPS = 200  # steps over which a class must be missing
LOST_SHARE = 1e-3  # share of the labelled pixels from which a class is missed
LEVELS = 4  # of a pseudo-label's pixel, see PseudoLabelCounter.count


class Counts(NamedTuple):
    """Pixels by class; int64 [C] on the device, or as lists."""

    labeled: Any  # of the masks of the labelled images
    shown: Any  # of the pseudo-labels, confident or not
    confident: Any  # of those that pass the threshold
    known: Any  # of those, in images whose true classes are known
    right: Any  # of those, where the pseudo-label is the true class


class PseudoLabelCounter:
    """Adds up `Counts` over steps, on the device.

    Args:
        num_classes: C.
        threshold: confidence from which a pseudo-label counts.
        device: of the batches.
    """

    def __init__(self, num_classes: int, threshold: float, device: torch.device | str) -> None:
        self.num_classes, self.threshold = num_classes, threshold
        # Labelled pixels, then those of the pseudo-labels by their level; IGNORE_INDEX is the last column.
        self.counts = torch.zeros(1 + LEVELS, num_classes + 1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def count(self, target: Tensor, pseudo: PseudoLabels, truth: Tensor | None = None) -> Tensor:
        """Add a batch: `target` uint8 [N, H, W], and the pseudo-labels' true classes uint8 [M, H, W] if known.

        Returns the number of confident pseudo-labels, int64 scalar.
        """
        # A pixel's level: how many of `confident`, `known` and `right` it is, of which each implies the one before.
        confident = pseudo.confidence >= self.threshold
        level = confident.long()
        if truth is not None:
            known = confident & (truth != IGNORE_INDEX)
            level += known
            level += known & (pseudo.label == truth)
        columns = self.num_classes + 1
        labeled = count_each(target.long().clamp_(max=self.num_classes), columns)
        index = pseudo.label.long().clamp_(max=self.num_classes).add_(level, alpha=columns)
        shown = count_each(index, LEVELS * columns).view(LEVELS, columns)
        self.counts += torch.cat([labeled[None], shown])
        return shown[1:, :-1].sum()

    def take(self) -> Tensor:
        """The counts since the last time, int64 [5, C]; they start at 0 again."""
        labeled, by_level = self.counts[:1, :-1], self.counts[1:, :-1]
        taken = torch.cat([labeled, by_level.flip(0).cumsum(0).flip(0)])
        self.counts.zero_()
        return taken


def measures(counts: Counts) -> dict[str, Any]:
    """What a record says of the pseudo-labels; None for a class with no pixel to measure.

    `coverage_by_class` is the share of a pseudo-label's pixels that are confident; `accuracy` and `accuracy_by_class`
    are shares of the confident pixels that are right, where the true classes are known.
    """
    if not sum(counts.shown):
        return {}
    found: dict[str, Any] = {"coverage_by_class": _shares(counts.confident, counts.shown)}
    if sum(counts.known):
        found["accuracy"] = sum(counts.right) / sum(counts.known)
        found["accuracy_by_class"] = _shares(counts.right, counts.known)
    return found


def _shares(parts: Sequence[int], wholes: Sequence[int]) -> list[float | None]:
    return [part / whole if whole else None for part, whole in zip(parts, wholes, strict=True)]


class CollapseWatch:
    """Says when pseudo-labels collapse: once, until it has passed and comes again."""

    def __init__(self, class_names: Sequence[str], threshold: float) -> None:
        self.class_names, self.threshold = class_names, threshold
        self._empty = 0  # steps without a confident pixel
        self._window: deque[tuple[int, Counts]] = deque()
        self._said: set[str] = set()

    def __call__(self, steps: int, counts: Counts) -> list[str]:
        """Warnings after `steps` more steps with these `counts`, as lists."""
        return list(self.news(steps, counts).values())

    def start_anew(self, threshold: float) -> None:
        """Forget what was seen, as what led to it has changed; what still holds is said again."""
        self.threshold, self._empty, self._said = threshold, 0, set()
        self._window.clear()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, to warn at the same step."""
        window = [(steps, list(counts)) for steps, counts in self._window]
        return {"empty": self._empty, "window": window, "said": sorted(self._said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._empty, self._said = state["empty"], set(state["said"])
        self._window = deque((steps, Counts(*counts)) for steps, counts in state["window"])

    def news(self, steps: int, counts: Counts) -> dict[str, str]:
        """The same by what is wrong: `empty`, `one CLASS` or `lost CLASS`."""
        if not sum(counts.shown):  # supervised, or in the warm-up
            return {}
        self._empty = 0 if sum(counts.confident) else self._empty + steps
        self._window.append((steps, counts))
        while sum(length for length, _ in self._window) - self._window[0][0] >= LOST_STEPS:
            self._window.popleft()
        found = {}
        if self._empty >= EMPTY_STEPS:
            found["empty"] = (
                f"no pseudo-label has passed --method.threshold {self.threshold} for {self._empty} steps: "
                f"lower it, or train longer on the labels alone (--method.warmup_steps)"
            )
        found |= self._one_class(counts) | self._lost()
        news = {key: warning for key, warning in found.items() if key not in self._said}
        self._said = set(found)
        return news

    def _one_class(self, counts: Counts) -> dict[str, str]:
        total, labeled = sum(counts.confident), sum(counts.labeled)
        if len(self.class_names) == 1 or total < COVERED * sum(counts.shown):
            return {}
        largest = max(range(len(self.class_names)), key=lambda c: counts.confident[c])
        share = counts.confident[largest] / total
        if share <= ONE_CLASS or counts.labeled[largest] > ONE_CLASS * labeled:
            return {}
        return {
            f"one {largest}": f"{share:.1%} of the confident pseudo-labels are {self.class_names[largest]}: "
            f"train longer on the labels alone (--method.warmup_steps), raise --method.threshold, or lower "
            f"--method.lambda_u"
        }

    def _lost(self) -> dict[str, str]:
        steps = sum(length for length, _ in self._window)
        labeled, confident = (
            [sum(column) for column in zip(*(getattr(counts, name) for _, counts in self._window), strict=True)]
            for name in ("labeled", "confident")
        )
        if steps < LOST_STEPS or not sum(confident):
            return {}
        return {
            f"lost {name}": f"{name} has {mine / sum(labeled):.1%} of the labelled pixels and no confident "
            f"pseudo-label in {steps} steps: try --method.logit_adjustment 0.5, or a lower --method.threshold"
            for name, mine, theirs in zip(self.class_names, labeled, confident, strict=True)
            if mine > LOST_SHARE * sum(labeled) and theirs == 0
        }
