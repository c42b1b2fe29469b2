"""Which loader is taken: DALI only where it was seen to decode, and what is said where it was not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml

from maskmatch.common.errors import UserError
from maskmatch.data import choose_loader, dali_installed
from maskmatch.data.loading import loader_choice
from maskmatch.data.loading.loader_choice import Choice

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
needs_dali = pytest.mark.skipif(not dali_installed(), reason="DALI is not installed")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    loader_choice.dali_problem.cache_clear()
    yield
    loader_choice.dali_problem.cache_clear()


def say(monkeypatch: pytest.MonkeyPatch, problem: str | None) -> None:
    monkeypatch.setattr(loader_choice, "dali_problem", lambda device: problem)


def test_auto_follows_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, None)
    for platform, on_gpu in (("linux", "dali"), ("darwin", "torch"), ("win32", "torch")):
        monkeypatch.setattr("sys.platform", platform)
        assert [choose_loader("auto", device).name for device in (GPU, CPU)] == [on_gpu, "torch"]
    assert choose_loader("dali", CPU) == choose_loader("dali", GPU) == Choice("dali")


def test_where_dali_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "DALI fails: no driver")
    monkeypatch.setattr("sys.platform", "linux")
    assert choose_loader("auto", GPU) == Choice("torch", "DALI fails: no driver")
    assert choose_loader("auto", CPU) == choose_loader("torch", GPU) == Choice("torch")
    assert choose_loader("dali", CPU, only_preferred=True) == Choice("torch", "DALI fails: no driver")
    with pytest.raises(UserError, match=r"data\.loader: .*\(or auto, or torch\), got: DALI fails: no driver"):
        choose_loader("dali", CPU)


@needs_dali
def test_dali_is_tried_on_an_image() -> None:
    assert loader_choice.dali_problem(CPU) is None


@needs_dali
@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        ("build", RuntimeError("\nCUDA driver version is insufficient\nStacktrace (7 entries):"), "driver version is"),
        ("run", RuntimeError("nvJPEG error (6): The device cannot decode"), "nvJPEG error (6): The device"),
        ("run", OSError("libnvcomp.so.5: cannot open shared object file"), "libnvcomp.so.5: cannot open"),
        ("run", MemoryError(), "MemoryError"),
    ],
)
def test_a_pipeline_that_fails(monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, said: str) -> None:
    from nvidia.dali import Pipeline

    monkeypatch.setattr(Pipeline, method, mock.Mock(side_effect=error))
    problem = loader_choice.dali_problem(CPU)
    assert problem and problem.startswith("DALI fails: ") and said in problem and "\n" not in problem


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            "raise ImportError('libcufft.so.12: cannot open shared object file')",
            "DALI fails: libcufft.so.12: cannot open",
        ),
        ("raise OSError('libnvjpeg.so.13: wrong ELF class')", "DALI fails: libnvjpeg.so.13: wrong ELF class"),
        ("", "DALI fails: cannot import name 'Pipeline'"),
        (None, "DALI is not installed: pip install 'maskmatch[dali-cuda1"),
    ],
)
def test_an_import_that_fails(tmp_path: Path, module: str | None, said: str) -> None:
    """By another nvidia.dali in front of the installed one, or none at all."""
    hidden = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n: None if n == 'nvidia.dali' else f(n)"
    if module is not None:
        put_in_front(tmp_path, module)
        hidden = ""
    code = f"{hidden}\nimport torch\nfrom maskmatch.data.loading.loader_choice import dali_problem\n"
    code += "print(dali_problem(torch.device('cpu')))"
    done = subprocess.run([sys.executable, "-c", code], env=with_path(tmp_path), capture_output=True, text=True)
    assert done.stdout.startswith(said), done.stderr


def put_in_front(folder: Path, module: str) -> None:
    """Another nvidia.dali, for `with_path`."""
    (folder / "nvidia/dali").mkdir(parents=True)
    (folder / "nvidia/__init__.py").touch()
    (folder / "nvidia/dali/__init__.py").write_text(module)


def with_path(folder: Path) -> dict[str, str]:
    """The environment of a process that finds modules in `folder` first, and the checkout's package."""
    paths = [str(folder), str(Path(__file__).resolve().parents[2])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@needs_dali
@pytest.mark.slow
def test_what_commands_do_where_dali_is_broken(tmp_path: Path) -> None:
    """By name it is refused, and there is no folder; a run's own configuration, given back, goes on with torch's."""
    put_in_front(tmp_path, "raise ImportError('no libnvjpeg')")

    def train(*options: str, broken: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "maskmatch.train", "--train.steps", "1", "--train.device", "cpu", *options]
        environment = with_path(tmp_path if broken else tmp_path / "nothing")
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    named = train("--data.loader", "dali", "--output", str(tmp_path / "named"))
    assert named.returncode == 2 and not (tmp_path / "named").exists()
    (line,) = named.stderr.splitlines()
    assert "data.loader: expected a DALI that works here" in line and "no libnvjpeg" in line

    first = train("--data.loader", "dali", "--output", str(tmp_path / "run"), broken=False)
    assert first.returncode == 0, first.stderr
    given_back = train("--config", str(tmp_path / "run/config.yaml"), "--output", str(tmp_path / "again"))
    assert given_back.returncode == 0, given_back.stderr
    assert "loader torch (DALI fails: no libnvjpeg);" in given_back.stdout.splitlines()[0]
    for run, loader in (("run", "dali"), ("again", "torch")):
        assert yaml.safe_load((tmp_path / run / "config.yaml").read_text())["data"]["loader"] == loader
