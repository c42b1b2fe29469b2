"""Where a program may keep what it would have to make again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder of maskmatch in the user's cache; it need not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskmatch"
