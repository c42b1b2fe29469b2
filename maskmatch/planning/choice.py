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
    """A value as it stands in a line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return str(text).removesuffix("\n").removesuffix("\n...")


def plain(text: str) -> str:
    """A reason on one line, without what a terminal would obey or YAML would not take: names of files may be any."""
    text = " ".join(text.split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
