"""The folder of a run: where it is, whether it may be written, and what it is resumed from."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from maskmatch.common.errors import UserError
from maskmatch.common.text_files import writable_folder
from maskmatch.config import Config, each_option
from maskmatch.config.former import flattened, other_constants, renewed
from maskmatch.data import check_fingerprint
from maskmatch.data.decoding.files import is_utf8
from maskmatch.run_files import checkpoint


def run_folder(config: Config) -> Path:
    """The folder that the run writes to, which is made.

    Raises:
        UserError: as `folder_of`, or it cannot be written.
    """
    return writable_folder(folder_of(config))


def folder_of(config: Config) -> Path:
    """Where the run writes to; a new runs/NAME-DATE-TIME where no place is given.

    Raises:
        UserError: it holds a run already and `resume` is never, its name is not UTF-8, or the checkpoint that `resume`
            names does not exist.
    """
    named = None if config.resume in ("never", "auto") else _checkpoint_path(config.resume)
    if config.output is not None:
        folder = Path(config.output)
    elif named:
        folder = named.parent.parent
    else:
        folder = _new_folder(Path("runs") / f"{config.data.layout}-{datetime.now():%Y%m%d-%H%M%S}")
    if not is_utf8(folder):
        raise UserError(f"output: expected a folder whose name is UTF-8, as TensorBoard asks for, got {folder}")
    if config.resume == "never" and (folder / "config.yaml").exists():
        raise UserError(f"{folder} already holds a run: give another --output, or --resume to go on with it")
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
    """Refuse to resume with what would make it another run: an option that is not `free`."""
    before = flattened(renewed(saved))
    # max_skipped_steps could end a run, but not change it.
    changed = [one for one in other_constants(saved) if one[0] != "train.max_skipped_steps"]
    for option in each_option(config):
        was = before.get(option.name, option.value)  # an option that the run did not know yet
        if option.about.saved and not option.about.free and _plain(was) != _plain(option.value):
            changed.append((option.name, was, option.value))
    for name, was, value in changed:
        raise UserError(f"{path} was written with {name} = {was}, got {value}: another run cannot resume it")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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
