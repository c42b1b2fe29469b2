"""What a loader decodes with: what was asked for, or what can work on this machine."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from typing import Literal, NamedTuple

import torch

from maskmatch.common.errors import UserError

AUTO = {("cpu", "linux"): "torch", ("cuda", "linux"): "dali"}
"""What `data.loader auto` takes by device and platform, as measured (docs/data.md); `torch` where DALI cannot work."""


class Choice(NamedTuple):
    """A loader that works here."""

    name: Literal["dali", "torch"]
    instead: str | None = None  # why it is not DALI, which would have been taken


def choose_loader(name: str, device: torch.device, *, only_preferred: bool = False) -> Choice:
    """The loader for the option `data.loader` and the training device; DALI is tried on an image before it is taken.

    Args:
        name: `auto`, `dali` or `torch`.
        device: of the training.
        only_preferred: whether `dali` is a preference too, as `auto` on a GPU is.

    Raises:
        UserError: `dali` was asked for, and cannot work.
    """
    wanted = AUTO.get((device.type, sys.platform), "torch") if name == "auto" else name
    if wanted != "dali":
        return Choice("torch")
    problem = dali_problem(device)
    if problem is None:
        return Choice("dali")
    if name == "dali" and not only_preferred:
        raise UserError(f"data.loader: expected a DALI that works here (or auto, or torch), got: {problem}")
    return Choice("torch", problem)


def dali_installed() -> bool:
    """Whether nvidia-dali can be imported (it is not, which would take a while)."""
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None


@cache
def dali_problem(device: torch.device) -> str | None:
    """Why DALI cannot decode for this device, in a line; None where it can, which was tried."""
    if not dali_installed():
        cuda = "12" if (torch.version.cuda or "").startswith("12.") else "13"
        return f"DALI is not installed: pip install 'maskmatch[dali-cuda{cuda}]'"
    try:
        from maskmatch.data.loading.dali_decoder import try_pipeline

        try_pipeline(device)
    except Exception as error:  # whatever a driver, a missing library or DALI itself may raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"DALI fails: {lines[0] if lines else type(error).__name__}"
    return None
