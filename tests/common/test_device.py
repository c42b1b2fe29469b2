"""Devices as users write them: each works, with an index where it is a GPU, or is refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from maskmatch.commands import evaluate, predict, train
from maskmatch.common.device import find_device, shapes_stay
from maskmatch.common.errors import UserError

BUSY = "CUDA error: CUDA-capable device(s) is/are busy or unavailable"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """A function that says how many GPUs there are, which of them are held by others, and which is the current one."""
    zeros = torch.zeros

    def say(count: int, *, held: tuple[int, ...] = (), current: int = 0) -> None:
        def zeros_on(size: int, *, device: torch.device) -> torch.Tensor:
            assert device.index is not None
            if device.index in held:
                raise RuntimeError(f"{BUSY}\nCUDA kernel errors might be asynchronously reported")
            return zeros(size)

        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.current_device", lambda: current)
        monkeypatch.setattr("torch.zeros", zeros_on)

    return say


@pytest.mark.parametrize(
    ("name", "count", "current", "expected"),
    [
        ("auto", 0, 0, "cpu"),
        ("cpu", 2, 0, "cpu"),
        ("auto", 1, 0, "cuda:0"),
        ("cuda", 1, 0, "cuda:0"),
        ("cuda", 2, 1, "cuda:1"),  # the program's own choice, by torch.cuda.set_device
        ("cuda:1", 2, 0, "cuda:1"),
        ("cuda:10", 12, 0, "cuda:10"),
        (torch.device("cuda"), 1, 0, "cuda:0"),
        (torch.device("cuda", 1), 2, 0, "cuda:1"),
    ],
)
def test_a_gpu_has_an_index(gpus, name, count, current, expected) -> None:
    gpus(count, current=current)
    assert find_device(name, "device") == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "count", "problem"),
    [
        *(
            (name, 1, f"device must be auto, cpu, cuda or cuda:N, got {name}")
            for name in ("tpu", "0", "", "CUDA", "gpu")
        ),
        *(
            (name, 1, "must be auto, cpu, cuda or cuda:N")
            for name in ("cuda:", "cuda:-1", "cuda:01", "cuda:1\n", "cuda:١")
        ),
        *((name, 1, "must be auto, cpu, cuda or cuda:N") for name in ("meta", "mps", "xpu:0", "cpu:0")),
        ("cuda:1", 1, "device is cuda:1, but torch sees cuda:0 alone"),
        ("cuda:300", 4, "device is cuda:300, but torch sees cuda:0 to cuda:3"),  # which torch takes for cuda:44
        ("cuda:99999999999", 4, "device is cuda:99999999999, but torch sees cuda:0 to cuda:3"),
        ("cuda", 0, "device is cuda, but torch"),
        ("cuda:0", 0, "device is cuda:0, but torch"),
    ],
)
def test_what_is_no_device_is_refused(gpus, name, count, problem) -> None:
    gpus(count)
    with pytest.raises(UserError) as refused:
        find_device(name, "device")
    assert problem in str(refused.value)


def test_the_second_gpu_works_while_another_process_holds_the_first(gpus) -> None:
    gpus(2, held=(0,))
    assert find_device("cuda:1", "train.device") == torch.device("cuda", 1)
    for name in ("auto", "cuda", "cuda:0"):
        with pytest.raises(UserError, match=r"train\.device: .* cannot be used: CUDA error: .*busy or unavailable$"):
            find_device(name, "train.device")


def test_a_driver_that_is_too_old(gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of devices does not come from CUDA itself, and may be known although nothing works."""

    def initialise() -> int:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040).")

    gpus(1)
    monkeypatch.setattr("torch.cuda.current_device", initialise)
    with pytest.raises(UserError, match="cuda cannot be used: The NVIDIA driver on your system is too old"):
        find_device("cuda", "device")


def test_each_process_has_a_gpu_of_its_own(gpus) -> None:
    gpus(2)
    assert find_device("cuda", "device", local_rank=1) == torch.device("cuda", 1)
    assert find_device("auto", "device", local_rank=0) == torch.device("cuda", 0)
    with pytest.raises(UserError, match="expected cuda, got cuda:0"):
        find_device("cuda:0", "device", local_rank=0)
    with pytest.raises(UserError, match="cuda:2 for process 2 of this machine, but torch sees cuda:0 to cuda:1"):
        find_device("cuda", "device", local_rank=2)


def of_a_command(command: str, device: str, run: Path, out: Path) -> list[str]:
    options = {
        "train": ["--train.device", device],
        "evaluate": [str(run), "--device", device],
        "predict": [str(run), str(out.parent), "--device", device],
    }
    return [*options[command], "--output", str(out)]


COMMANDS = {"train": train.main, "evaluate": evaluate.main, "predict": predict.main}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_it_in_one_line(
    command: str, run: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert "device must be" in refusal(COMMANDS[command], *of_a_command(command, "gpu", run, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_without_a_device(command: str, run: Path, tmp_path: Path) -> None:
    """With the devices hidden, as on a machine that has none."""
    done = subprocess.run(
        [sys.executable, "-m", f"maskmatch.{command}", *of_a_command(command, "cuda:1", run, tmp_path / "out")],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "device is cuda:1" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("device", "asked", "tries"),
    [("cuda", None, True), ("cpu", None, False), ("cuda", "cudnn", False), ("cuda", "torch", False)],
)
def test_cudnn_tries_where_shapes_stay(monkeypatch, device, asked, tries):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", asked == "cudnn")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: asked == "torch")
    with shapes_stay(torch.device(device)):
        assert torch.backends.cudnn.benchmark == tries
    assert not torch.backends.cudnn.benchmark
