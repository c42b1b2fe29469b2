"""The folder of a run: where it is, whether it may be written, where a run is resumed from."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from maskmatch.config import Config
from maskmatch.errors import UserError


def run_folder(config: Config) -> Path:
    """The folder that the run writes to; a new runs/NAME-DATE-TIME where none is given.

    Raises:
        UserError: it holds a run already and `resume` is never, it cannot be written, or the checkpoint that
            `resume` names does not exist.
    """
    named = None if config.resume in ("never", "auto") else _checkpoint_path(config.resume)
    if config.output is not None:
        folder = Path(config.output)
    elif named:
        folder = named.parent.parent
    else:
        folder = _new_folder(Path("runs") / f"{config.data.name}-{datetime.now():%Y%m%d-%H%M%S}")
    if config.resume == "never" and (folder / "config.yaml").exists():
        raise UserError(f"{folder} already holds a run: give another --output, or --resume to go on with it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the output folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to the output folder {folder}: permission denied")
    return folder


def resume_path(config: Config, folder: Path) -> Path | None:
    """The checkpoint to start from, None for step 0."""
    if config.resume == "never":
        return None
    if config.resume == "auto":
        last = folder / "checkpoints" / "last"
        return last.resolve() if last.exists() else None
    return _checkpoint_path(config.resume)


def _checkpoint_path(name: str) -> Path:
    path = Path(name)
    if not (path / "state.pt").exists():
        raise UserError(f"--resume takes never, auto or the folder of a checkpoint (.../checkpoints/last), got {name}")
    return path.resolve()


def _new_folder(path: Path) -> Path:
    """The path, or the next free one where two runs start in one second."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
