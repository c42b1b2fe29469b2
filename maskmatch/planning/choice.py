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
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
