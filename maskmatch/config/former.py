"""Options of before: what they are called today, so that what was written with them is still read."""

from __future__ import annotations

from typing import Any

from maskmatch.config.fields import DataConfig
from maskmatch.config.validation import nested

MOVED = {
    f"method.{name}": f"method.ablation.{name}"
    for name in ("reconstruction", "lambda_r", "average", "masked_view", "region")
}
JITTER_STRENGTHS = "data.jitter_strengths"
STRENGTHS = ("data.brightness", "data.contrast", "data.saturation", "data.hue")
CONSTANTS = {"train.momentum": 0.9, "train.poly_power": 0.9, "train.max_skipped_steps": 20}
"""What had been an option, and has one value now."""

CALLED_NOW = {
    **{f"--{old}": f"it is --{new} now" for old, new in MOVED.items()},
    **{f"--{name}": f"--{JITTER_STRENGTHS} has all four now: {', '.join(STRENGTHS)}" for name in STRENGTHS},
    **{f"--{name}": f"it is no option any more, but always {value}" for name, value in CONSTANTS.items()},
}
"""What to say to who types one."""


def renewed(options: dict[str, Any]) -> dict[str, Any]:
    """Options by section with today's names; those of a file, or of a checkpoint."""
    flat = flattened(options)
    return nested(renewed_flat(flat)) if flat.keys() & {*MOVED, *STRENGTHS, *CONSTANTS} else options


def renewed_flat(options: dict[str, Any]) -> dict[str, Any]:
    """The same of `section.option` -> value; what has become a constant is left out."""
    found = {name: value for name, value in options.items() if name not in {*MOVED, *STRENGTHS, *CONSTANTS}}
    for old, new in MOVED.items():
        if old in options:
            found.setdefault(new, options[old])
    if any(name in options for name in STRENGTHS):
        pairs = zip(STRENGTHS, DataConfig.jitter_strengths, strict=True)
        found.setdefault(JITTER_STRENGTHS, [options.get(name, value) for name, value in pairs])
    return found


def other_constants(options: dict[str, Any]) -> list[tuple[str, Any, float]]:
    """Of options by section: those that are constants now and have another value, with both."""
    given = flattened(options)
    return [(name, given[name], value) for name, value in CONSTANTS.items() if given.get(name, value) != value]


def flattened(sections: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, value in sections.items():
        found |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
