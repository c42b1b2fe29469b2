"""One choice of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """An option by its full name, its value, and why."""

    option: str
    value: Any
    reason: str
