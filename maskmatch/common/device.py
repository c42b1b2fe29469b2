"""Where networks run: from what a user writes to a device with an index, tried before anything else is done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from maskmatch.common.errors import UserError

EXPECTED = "auto, cpu, cuda or cuda:N"


def find_device(name: str | torch.device, option: str, local_rank: int | None = None) -> torch.device:
    """The device that an option names: `cpu`, or a GPU with its index, which was made to answer.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`; a GPU without an index is the program's current one.
        option: what the message calls it.
        local_rank: which of several processes of this machine this is, each with a GPU of its own; None: the only one.

    Raises:
        UserError: there is no such device, it does not answer, or it is not one for every process.
    """
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = re.fullmatch(r"cpu|cuda(?::(0|[1-9]\d*))?", name, re.ASCII)
    if wanted is None:
        raise UserError(f"{option} must be {EXPECTED}, got {name}")
    if name == "cpu":
        return torch.device("cpu")
    index = wanted[1]
    if local_rank is not None and index is not None:
        raise UserError(f"{option}: each process takes a GPU of its own, expected cuda, got {name}")
    count = torch.cuda.device_count()
    if not count:
        raise UserError(f"{option} is {name}, but torch {_why_none()}")
    if local_rank is not None:
        index = str(local_rank)
    if index is not None and int(index) >= count:
        process = f" for process {local_rank} of this machine" if local_rank is not None else ""
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UserError(f"{option} is cuda:{index}{process}, but torch sees {there}")
    try:  # a GPU may be held by another process, or its driver be too old
        device = torch.device("cuda", torch.cuda.current_device() if index is None else int(index))
        torch.zeros(1, device=device)
    except RuntimeError as error:
        problem = str(error).strip().partition("\n")[0]
        raise UserError(f"{option}: {name} cannot be used: {problem}") from error
    return device


def _why_none() -> str:
    if torch.version.cuda is None:
        return f"{torch.__version__} is built without CUDA"
    return "sees no CUDA device (CUDA_VISIBLE_DEVICES may hide it, or the driver be too old)"


@contextmanager
def shapes_stay(device: torch.device) -> Iterator[None]:
    """Inside, cuDNN tries what it has for a shape that it meets, and keeps what was fastest.

    Not where deterministic algorithms were asked for: what is fastest may be another one next time.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    deterministic = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    cudnn.benchmark = before or (device.type == "cuda" and not deterministic)
    try:
        yield
    finally:
        cudnn.benchmark = before
