"""Choosing which images of a data set to label, so that every class is shown."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from maskmatch.common.errors import UserError

Order = Literal["even", "random"]


def count_of(text: str, total: int, option: str) -> int:
    """`20` images, or `1/8` or `0.125` of `total`; at least one."""
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    count = int(number) if number >= 1 and number.denominator == 1 else max(1, round(number * total))
    if number <= 0 or count > total or (number > 1 and number.denominator > 1):
        raise UserError(f"{option}: expected 1 to {total} images, or a part of them such as 1/8, got {text}")
    return count


def choose(shown: np.ndarray, count: int, order: Order, seed: int) -> list[int]:
    """Indices, ascending, of `count` images that together show every class that any image shows.

    Args:
        shown: bool [N, C], the classes of each image.
        count: how many of the N.
        order: `even` spreads the choice over the list, `random` draws it by `seed`.

    Raises UserError where no such choice of this size was found.
    """
    preferred = spread(len(shown), count, order, seed)
    chosen = list(preferred[:count])
    if not _covers(shown, chosen):
        chosen = _exchanged(shown, chosen, preferred) or _greedy(shown, count, preferred)
    return sorted(chosen)


def spread(total: int, count: int, order: Order, seed: int) -> list[int]:
    """All of range(total): first the `count` preferred ones, then the rest, the nearest to them first."""
    if order == "random":
        return np.random.Generator(np.random.Philox(key=seed)).permutation(total).tolist()
    even = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    chosen = set(even)
    rest = [i for i in range(total) if i not in chosen]
    return even + sorted(rest, key=lambda i: min((abs(i - j) for j in even), default=0))


def _covers(shown: np.ndarray, chosen: Sequence[int]) -> bool:
    return bool((shown[list(chosen)].any(0) == shown.any(0)).all())


def _exchanged(shown: np.ndarray, chosen: list[int], preferred: Sequence[int]) -> list[int] | None:
    """The choice with as few images exchanged as possible; None where that does not work out."""
    chosen = list(chosen)
    for label in np.argsort(shown.sum(0), kind="stable"):  # the rarest class has the fewest images to offer
        if shown[chosen, label].any() or not shown[:, label].any():
            continue
        wanted = next(i for i in preferred if shown[i, label])
        times = shown[chosen].sum(0)
        spare = [i for i in chosen if not (shown[i] & (times == 1) & ~shown[wanted]).any()]
        if not spare:
            return None
        chosen.remove(min(spare, key=lambda i: abs(i - wanted)))
        chosen.append(wanted)
    return chosen


def _greedy(shown: np.ndarray, count: int, preferred: Sequence[int]) -> list[int]:
    """As few images as show every class, each time the one with the most new classes; then the preferred ones."""
    missing = shown.any(0)
    chosen: list[int] = []
    while missing.any():
        chosen.append(max(preferred, key=lambda i: int((shown[i] & missing).sum())))
        missing = missing & ~shown[chosen[-1]]
    if len(chosen) > count:
        raise UserError(f"labeled: expected {len(chosen)} images or more, as fewer show not every class, got {count}")
    taken = set(chosen)
    return chosen + [i for i in preferred if i not in taken][: count - len(chosen)]
