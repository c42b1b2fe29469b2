"""Files of torch.save, which are pickles: what they hold is read, and never run."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch


def read_tensors(file: Path | IO[bytes], also: Sequence[Any] = ()) -> Any:
    """What torch.save wrote, on the CPU, as far as it is made of tensors, numbers, texts and collections of those.

    Args:
        file: its path or content.
        also: what else it may be made of, as torch.serialization.safe_globals takes it.

    Raises:
        ValueError: it holds anything else, which a pickle would run; one line that says what.
        Exception: it is damaged, and torch says so in its own way.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(also)):
            warnings.simplefilter("ignore")  # of the pickle's version; what matters is raised
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose text says how to run it all the same
        found = re.search(r"GLOBAL (\S+)", str(error))
        got = found[1].rstrip(",.;") if found else "damage, or more than that"
        raise ValueError(f"expected tensors, numbers and texts alone, got {got}") from error
