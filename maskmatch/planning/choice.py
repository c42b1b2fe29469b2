"""An option, its value, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Choice:
    """An option by its full name, its value, and why."""

    option: str
    value: Any
    reason: str


def flow(value: Any) -> str:
    """A value as YAML on one line, with the letters of all scripts as they are, and escapes for what is no letter."""
    for as_they_are in (True, False):
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=as_they_are, width=10**6)
        text = str(text).removesuffix("\n").removesuffix("\n...")
        if text.isprintable():
            break
    return text


def plain(text: str) -> str:
    """A reason on one line, without what a terminal would obey or YAML would not take: names of files may be any."""
    text = " ".join(text.split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
