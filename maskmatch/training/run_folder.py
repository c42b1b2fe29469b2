"""The folder of a run: where it is, whether it may be written, what it is resumed from, its configuration."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from maskmatch.config import NOT_OF_THE_RUN, Config, DataConfig
from maskmatch.data import check_fingerprint
from maskmatch.data.files import is_utf8
from maskmatch.data.lists import located
from maskmatch.environment import environment
from maskmatch.errors import UserError
from maskmatch.training import checkpoint

FREE_ON_RESUME = {
    *("steps", "epochs", "validate_every", "checkpoint_every", "warmup_steps", "ramp_steps", "ema_momentum"),
    *("batch_size", "accumulate"),  # only their product counts, with the processes: the data's fingerprint has it
    *("device", "compile", "workers", "loader", "cache", "on_error", "keep_checkpoints"),
    *("checkpoint_activations", "max_skipped_steps"),
    *("num_classes", "class_names", "palette", "root", "encoder_weights"),
}


def run_folder(config: Config) -> Path:
    """The folder that the run writes to; a new runs/NAME-DATE-TIME where none is given.

    Raises:
        UserError: it holds a run already and `resume` is never, it cannot be written, its name is not UTF-8, or the
            checkpoint that `resume` names does not exist.
    """
    named = None if config.resume in ("never", "auto") else _checkpoint_path(config.resume)
    if config.output is not None:
        folder = Path(config.output)
    elif named:
        folder = named.parent.parent
    else:
        folder = _new_folder(Path("runs") / f"{config.data.name}-{datetime.now():%Y%m%d-%H%M%S}")
    if not is_utf8(folder):
        raise UserError(f"output: expected a folder whose name is UTF-8, as TensorBoard asks for, got {folder}")
    if config.resume == "never" and (folder / "config.yaml").exists():
        raise UserError(f"{folder} already holds a run: give another --output, or --resume to go on with it")
    return writable_folder(folder)


def writable_folder(folder: Path) -> Path:
    """Make the folder where there is none; raise UserError where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the output folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to the output folder {folder}: permission denied")
    return folder


def resume(
    config: Config, data: dict[str, Any], folder: Path, student: nn.Module, teacher: nn.Module
) -> tuple[checkpoint.State | None, list[str]]:
    """Load what `config.resume` says into the networks; `data` is the fingerprint of this run's batches.

    Returns:
        The state, None for a start at step 0; and lines on damaged checkpoints that were passed over, and on data
        that are others than before.

    Raises:
        UserError: it cannot be loaded, or is another run's.
    """
    if config.resume == "never":
        return None, []
    checkpoints, notes = folder / "checkpoints", list[str]()
    if config.resume == "auto":
        path = checkpoints / "last"
        state, notes = checkpoint.load_last(checkpoints, student, teacher)
    else:
        path = _checkpoint_path(config.resume)
        state = checkpoint.load(path, student, teacher)
    if state:
        _check_same_run(state.config, config, path)
        if state.data is not None:
            notes += check_fingerprint(state.data, data)
        if path.parent.resolve() == checkpoints.resolve():
            checkpoint.take_back(checkpoints, state.step)
    return state, notes


def _check_same_run(saved: dict[str, Any], config: Config, path: Path) -> None:
    """Refuse to resume with what would make it another run. Lengths and intervals may change."""
    for part, options in asdict(config).items():
        if not isinstance(options, dict):
            continue
        for name, value in options.items():
            was = saved[part].get(name, value)  # an option that the run did not know yet
            if name not in FREE_ON_RESUME and was != value:
                raise UserError(
                    f"{path} was written with {part}.{name} = {was}, got {value}: another run cannot resume it"
                )


def write_config(folder: Path, config: Config, found: dict[str, Any]) -> None:
    """config.yaml reproduces the run with --config, into another folder; `found` is what `data` was resolved to."""
    options = {name: value for name, value in asdict(config).items() if name not in NOT_OF_THE_RUN}
    options["data"] |= found
    write_text(folder / "config.yaml", yaml.safe_dump(options, sort_keys=False))


def write_environment(folder: Path) -> None:
    """environment.json: versions and devices of the process that trained last, and the folder that it ran in."""
    found = environment() | {"training": {"folder": os.getcwd()}}
    write_text(folder / "environment.json", json.dumps(found, indent=1) + "\n")


def data_of(run: Path, config: DataConfig) -> DataConfig:
    """A run's data options with the relative paths in them as they were meant where it was trained.

    They stay as they are where that folder is this one, is gone, or was not recorded.
    """
    try:
        folder = Path(json.loads((run / "environment.json").read_text())["training"]["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return config
    return config if folder == Path.cwd() else located(config, folder)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; in UTF-8, but for names of files that are none."""
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


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
