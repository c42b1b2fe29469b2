"""Checkpoints that survive a full disk, a kill at any moment, and a file that went bad.

    checkpoints/step_N/{student,teacher}.safetensors    weights, under the network's own names
    checkpoints/step_N/state.pt                         optimizer, step, best mIoU, configuration
    checkpoints/step_N/sha256                           sums of the three, as sha256sum -c takes them
    checkpoints/baseline/                               weights of the supervised-only baseline, where there was one
    checkpoints/last, checkpoints/best                  symbolic links to a step_N, and best maybe to baseline

A checkpoint is written beside its place, synced, and renamed; the links are swapped by os.replace, `last` at the end.
So `last` is whole at every moment, and whatever `best` is to be after it is there already.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from maskmatch.common.errors import UserError
from maskmatch.common.tensor_files import read_tensors

FILES = ("student.safetensors", "teacher.safetensors", "state.pt")
BASELINE = "baseline"

Weights = dict[str, torch.Tensor]
"""By the network's own names."""


@dataclass
class State:
    """All of a run that is neither weights nor configuration."""

    step: int  # optimizer steps done
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    best_miou: float  # on val; -1 before the first validation
    config: dict[str, Any]
    data: dict[str, Any] | None = None  # fingerprint of the batches; None in checkpoints of before it was kept
    best_step: int = 0  # when that was
    head: dict[str, Any] = field(default_factory=dict)  # weights of what is trained beside the network
    class_balance: dict[str, Any] = field(default_factory=dict)  # what it has seen of the classes
    unlogged: dict[str, Any] = field(default_factory=dict)  # what the steps since the last record have measured
    baseline: dict[str, Any] = field(default_factory=dict)  # the supervised-only network beside the run's
    remedies: dict[str, Any] = field(default_factory=dict)  # what the run has done about its warnings
    finished_step: bool = True  # False where the run was stopped before `step` was validated and logged

    @property
    def last_record(self) -> int:
        """The last step that metrics.jsonl can hold."""
        return self.step if self.finished_step else self.step - 1


def save(folder: Path, student: nn.Module, teacher: nn.Module, state: State, *, best: bool, keep: int) -> None:
    """Write folder/step_N, point `last` (and `best`) at it and keep the last `keep` and the best one.

    Raises:
        UserError: the disk is full or not writable; what was there before is untouched.
    """
    place = folder / f"step_{state.step}"
    with _intact(folder, place):
        _replace(place, _files(student, teacher, state))
        for link in ("best", "last") if best else ("last",):
            _point(folder / link, place.name)
        _sync_folder(folder)
    _prune(folder, state, keep)


def save_baseline(folder: Path, student: Weights, teacher: Weights, *, best: bool) -> None:
    """Write folder/baseline, weights alone, and point `best` at it if that is what it is.

    Raises:
        UserError: as `save`.
    """
    place = folder / BASELINE
    with _intact(folder, place):
        weights = {"student": student, "teacher": teacher}
        _replace(place, [(f"{name}.safetensors", safetensors.torch.save(of)) for name, of in weights.items()])
        if best:
            _point(folder / "best", place.name)
        _sync_folder(folder)
    shutil.rmtree(_old(place), ignore_errors=True)


@contextlib.contextmanager
def _intact(folder: Path, place: Path) -> Iterator[None]:
    """A checkpoint that cannot be written leaves those before it as they are; UserError."""
    try:
        yield
    except OSError as error:
        shutil.rmtree(_beside(place), ignore_errors=True)
        _restore(folder)
        raise UserError(
            f"could not write the checkpoint {place}: {error.strerror}; the one before is intact"
        ) from error


def _replace(place: Path, files: list[tuple[str, bytes]]) -> None:
    """Write a checkpoint's folder, with the sums of its files, beside its place, then move it there."""
    beside, old = _beside(place), _old(place)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    sums = ""
    for name, content in files:
        _write(beside / name, content)
        sums += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    _write(beside / "sha256", sums.encode())
    _sync_folder(beside)
    if place.exists():  # of a run that was killed before it moved the links, or resumed from further back
        shutil.rmtree(old, ignore_errors=True)
        os.replace(place, old)
    os.replace(beside, place)
    _sync_folder(place.parent)


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name}.tmp")


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


class DamagedError(UserError):
    """A checkpoint that is not what was written."""


def load(path: Path, student: nn.Module, teacher: nn.Module) -> State:
    """Load a checkpoint folder into both networks.

    Raises:
        DamagedError: something is missing or not as it was written; nothing was loaded.
        UserError: the weights are those of another network.
    """
    try:
        files = _checked_files(path)
        state = State(**read_tensors(io.BytesIO(files["state.pt"])))
        weights = [safetensors.torch.load(files[f"{name}.safetensors"]) for name in ("student", "teacher")]
    except FileNotFoundError as error:
        raise DamagedError(f"not a checkpoint: {path} lacks {error.filename or error}") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, TypeError, ValueError, KeyError) as error:
        raise DamagedError(f"cannot load the checkpoint {path}: {_first_line(error)}") from error
    try:
        student.load_state_dict(weights[0])
        teacher.load_state_dict(weights[1])
    except RuntimeError as error:
        raise UserError(f"cannot load the checkpoint {path}: {_first_line(error)}") from error
    return state


def load_weights(path: Path, name: str) -> Weights:
    """The weights of one network of a checkpoint folder; `name` is student or teacher.

    Raises:
        DamagedError: they are missing or not as they were written.
    """
    file = f"{name}.safetensors"
    try:
        content = _content(path / file)
        if (path / "sha256").exists():  # older checkpoints have no sums
            _check_sum(content, file, _sums(path).get(file))
        return safetensors.torch.load(content)
    except FileNotFoundError as error:
        raise DamagedError(f"not a checkpoint: {path} lacks {error.filename or error}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(f"cannot load the checkpoint {path}: {_first_line(error)}") from error


def load_last(folder: Path, student: nn.Module, teacher: nn.Module) -> tuple[State | None, list[str]]:
    """Load `last`, or where it is damaged the newest checkpoint before it that is not.

    Returns:
        The state, None where there is no checkpoint at all; and a line on each one that was passed over.

    Raises:
        UserError: none of the checkpoints can be loaded, or they are those of another network.
    """
    _restore(folder)
    last = folder / "last"
    newest = _step(last.resolve()) if last.exists() else None
    damages: list[str] = []
    for step in sorted((_step(path) for path in folder.glob("step_*")), reverse=True):
        if newest is not None and step > newest:  # written by a run that was then taken back to an earlier step
            continue
        try:
            state = load(folder / f"step_{step}", student, teacher)
        except DamagedError as error:
            damages.append(str(error))
        else:
            return state, [f"{damage}; going on from step {step} instead" for damage in damages]
    if damages:
        raise UserError(f"no checkpoint in {folder} can be loaded: {'; '.join(damages)}")
    return None, []


def take_back(folder: Path, step: int) -> None:
    """Make step_N the `last` one, so that a run that is resumed from it and killed at once is resumed from it again."""
    _point(folder / "last", f"step_{step}")
    _sync_folder(folder)


def _restore(folder: Path) -> None:
    """Put back what a save had moved aside when it was killed."""
    for old in folder.glob(".*.old"):
        place = folder / old.name.removeprefix(".").removesuffix(".old")
        if not place.exists():
            with contextlib.suppress(FileNotFoundError):  # another process of the same run was faster
                os.replace(old, place)


def _files(student: nn.Module, teacher: nn.Module, state: State) -> list[tuple[str, bytes]]:
    buffer = io.BytesIO()  # torch.save to a full disk says nothing that a user could understand
    torch.save(vars(state), buffer)
    return [
        ("student.safetensors", safetensors.torch.save(_weights(student))),
        ("teacher.safetensors", safetensors.torch.save(_weights(teacher))),
        ("state.pt", buffer.getvalue()),
    ]


def _checked_files(path: Path) -> dict[str, bytes]:
    """The content of a checkpoint's files, by name; ValueError where one does not have its sum."""
    sums = _sums(path)
    files = {name: _content(path / name) for name in FILES}  # whatever else the sums may name
    for name, content in files.items():
        _check_sum(content, name, sums.get(name))
    return files


def _content(path: Path) -> bytes:
    """A file's content; ValueError for a device or a pipe, which might never end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no regular file")
    return path.read_bytes()


def _sums(path: Path) -> dict[str, str]:
    """File name -> sha256, of a checkpoint folder."""
    lines = (line.partition("  ") for line in _content(path / "sha256").decode().splitlines())
    return {name: expected for expected, _, name in lines}


def _check_sum(content: bytes, name: str, expected: str | None) -> None:
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"{name} is damaged")


def _weights(network: nn.Module) -> Weights:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _point(link: Path, target: str) -> None:
    beside = link.with_name(f".{link.name}.tmp")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    os.replace(beside, link)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _prune(folder: Path, state: State, keep: int) -> None:
    steps = sorted((_step(path) for path in folder.glob("step_*") if _step(path) <= state.step), reverse=True)
    kept = {f"step_{number}" for number in (*steps[:keep], state.best_step)}
    kept |= {os.readlink(link) for link in (folder / "last", folder / "best") if link.is_symlink()}
    for checkpoint in [*folder.glob("step_*"), *folder.glob(".step_*")]:
        if checkpoint.name not in kept:
            shutil.rmtree(checkpoint, ignore_errors=True)
