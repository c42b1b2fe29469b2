"""Checkpoints that survive a full disk and a kill at any moment.

    checkpoints/step_N/{student,teacher}.safetensors    weights, under the network's own names
    checkpoints/step_N/state.pt                         optimizer, step, best mIoU, configuration
    checkpoints/last, checkpoints/best                  symbolic links to a step_N

A checkpoint is written beside its place, synced, and renamed; the links are swapped by os.replace.
"""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from maskmatch.errors import UserError


@dataclass
class State:
    """All of a run that is neither weights nor configuration."""

    step: int  # optimizer steps done
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    best_miou: float  # of the teacher, on val; -1 before the first validation
    config: dict[str, Any]
    data: dict[str, Any] | None = None  # fingerprint of the batches; None in checkpoints of before it was kept


def save(folder: Path, student: nn.Module, teacher: nn.Module, state: State, *, best: bool) -> None:
    """Write folder/step_N, point `last` (and `best`) at it and drop what nothing points at any more.

    Raises:
        UserError: the disk is full or not writable; what was there before is untouched.
    """
    place, beside = folder / f"step_{state.step}", folder / f".step_{state.step}.tmp"
    old = folder / f".step_{state.step}.old"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, network in (("student", student), ("teacher", teacher)):
            _write(beside / f"{name}.safetensors", safetensors.torch.save(_weights(network)))
        buffer = io.BytesIO()  # torch.save to a full disk says nothing that a user could understand
        torch.save(vars(state), buffer)
        _write(beside / "state.pt", buffer.getvalue())
        if place.exists():  # of a run that was killed before it moved the links, or resumed from further back
            shutil.rmtree(old, ignore_errors=True)
            os.replace(place, old)
        os.replace(beside, place)
        _sync_folder(folder)
        for link in ("last", "best") if best else ("last",):
            _point(folder / link, place.name)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise UserError(
            f"could not write the checkpoint {place}: {error.strerror}; the one before is intact"
        ) from error
    _prune(folder)


def load(path: Path, student: nn.Module, teacher: nn.Module) -> State:
    """Load a checkpoint folder into both networks.

    Raises:
        UserError: something is missing, damaged, or of another network.
    """
    try:
        for name, network in (("student", student), ("teacher", teacher)):
            network.load_state_dict(safetensors.torch.load_file(path / f"{name}.safetensors"))
        return State(**torch.load(path / "state.pt", map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise UserError(f"not a checkpoint: {path} lacks {error.filename or error}") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, TypeError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(f"cannot load the checkpoint {path}: {first_line}") from error


def _weights(network: nn.Module) -> dict[str, torch.Tensor]:
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


def _prune(folder: Path) -> None:
    kept = {os.readlink(link) for link in (folder / "last", folder / "best") if link.is_symlink()}
    for checkpoint in [*folder.glob("step_*"), *folder.glob(".step_*")]:
        if checkpoint.name not in kept:
            shutil.rmtree(checkpoint, ignore_errors=True)
