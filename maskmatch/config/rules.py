"""What stands beside an option: `lr: float = option(3e-3, POSITIVE)`, and the rules to choose from.

Every option is held to its declared type, and every number in it to what float32 or int32 can hold; a rule says what
else a value must be. None, where the type allows it, is held to none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

T = TypeVar("T")
LARGEST_INT = 2**31 - 1
LARGEST_FLOAT = 3.4e38


class Rule(NamedTuple):
    """`lr must be {expected}, got -1`."""

    expected: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class About:
    """What an option says about itself, beside its type, default and text."""

    rules: tuple[Rule, ...] = ()
    free: bool = False
    saved: bool = True
    follows: Callable[[int], Any] | None = None


def option(
    default: T,
    *rules: Rule,
    free: bool = False,
    saved: bool = True,
    follows: Callable[[int], T] | None = None,
) -> T:
    """A dataclass's field.

    Args:
        default: its value, or None for what follows from the rest.
        rules: what it must be; the first one that it breaks is named.
        free: whether a resumed run may have another value, as what it comes to stays the same.
        saved: False for what says what the command does and not what the run is: no file of the run has it.
        follows: number of steps -> the value that None stands for.
    """
    metadata = {"about": About(rules, free, saved, follows)}
    if isinstance(default, list):
        return cast(T, field(default_factory=lambda: list(default), metadata=metadata))
    return field(default=default, metadata=metadata)


def at_least(least: int) -> Rule:
    return Rule(f"at least {least}", lambda value: value >= least)


def between(low: float, high: float) -> Rule:
    """Both ends included."""
    return Rule(f"a number from {low} to {high}", lambda value: low <= value <= high)


def one_of(*values: int) -> Rule:
    return Rule(f"one of {', '.join(map(str, values))}", lambda value: value in values)


def each_up_to(most: float) -> Rule:
    """Of a number, or of each in a list."""
    return Rule(f"at most {most}", lambda value: all(number <= most for number in numbers(value)))


POSITIVE = Rule("positive", lambda value: all(number > 0 for number in numbers(value)))
SHARE = between(0, 1)
SHARE_ABOVE_0 = Rule("a number above 0 and up to 1", lambda value: 0 < value <= 1)
RANGE = Rule("two positive numbers, the smaller one first", lambda value: 0 < value[0] <= value[1])
POSITIVE_LIST = Rule("a list of positive numbers", lambda value: bool(value) and min(value) > 0)
WEIGHTS = Rule("numbers of at least 0, not all 0", lambda value: min(value or [0]) >= 0 and max(value or [0]) > 0)
JITTER_STRENGTHS = Rule(
    "four numbers of at least 0, the last one (hue) up to 0.5", lambda value: min(value) >= 0 and value[3] <= 0.5
)
# Of every option.
INT32 = Rule(
    f"at most {LARGEST_INT} in size",
    lambda value: all(abs(number) <= LARGEST_INT for number in numbers(value) if isinstance(number, int)),
)
FINITE = Rule(
    "finite", lambda value: all(math.isfinite(number) for number in numbers(value) if isinstance(number, float))
)
FLOAT32 = Rule(
    f"at most {LARGEST_FLOAT:g} in size", lambda value: all(abs(number) <= LARGEST_FLOAT for number in numbers(value))
)


def numbers(value: Any) -> Iterator[int | float]:
    """The numbers in a value, also in its lists."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for part in value:
            yield from numbers(part)
