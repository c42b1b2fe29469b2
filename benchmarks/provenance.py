"""What a number depends on besides the code: the fields that every record of every benchmark has."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import maskmatch
from maskmatch.run_files.versions import version_of

ROOT = Path(__file__).resolve().parents[1]


def machine(device: str) -> dict[str, Any]:
    """What a number depends on besides the code."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": device,
        "machine": name,
        "threads": torch.get_num_threads(),
        **_versions(),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


@cache
def _versions() -> dict[str, str | None]:
    found = {"maskmatch": maskmatch.__version__, "numpy": np.__version__, "triton": version_of("triton", "triton")}
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(), **found}


def _commit() -> str | None:
    """Of the sources, "-dirty" where they differ from it; None where they are not a git repository.

    docs/ is not looked at: there the results themselves are written.
    """
    git = ["git", "-C", str(ROOT)]
    if shutil.which("git") is None:
        return None
    commit = subprocess.run([*git, "describe", "--always"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ".", ":!docs"], capture_output=True).returncode
    return (f"{commit}-dirty" if changed else commit) or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
