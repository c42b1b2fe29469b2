"""Numbers as JSON can hold them."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> float | None:
    """The number; None, JSON's null, for a NaN (nothing was measured), an infinity and what is no number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
