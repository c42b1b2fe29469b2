"""Which loader is taken: DALI only where it was seen to decode, and what is said where it was not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from maskmatch.data import choose_loader, dali_installed, loader_choice
from maskmatch.data.loader_choice import Choice
from maskmatch.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
needs_dali = pytest.mark.skipif(not dali_installed(), reason="DALI is not installed")

FAULTS = {
    "not installed": (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'nvidia.dali' else find(name, *rest)",
        "nvidia-dali is not installed",
    ),
    "import": ("import sys; sys.modules['nvidia.dali'] = None", "import of nvidia.dali halted"),
    "library": (
        "import sys, types\n"
        "class Broken(types.ModuleType):\n"
        "    def __getattr__(self, name): raise OSError('libnvjpeg.so.13: cannot open shared object file')\n"
        "sys.modules['nvidia.dali'] = Broken('nvidia.dali')",
        "libnvjpeg.so.13: cannot open shared object file",
    ),
    "build": (
        "import nvidia.dali as dali\n"
        "def build(*args, **kwargs): raise RuntimeError('\\nCUDA driver version is insufficient\\nStacktrace')\n"
        "dali.Pipeline.build = build",
        "CUDA driver version is insufficient",
    ),
    "first run": (
        "import nvidia.dali as dali\n"
        "def run(*args, **kwargs): raise RuntimeError('nvJPEG error (6): status')\n"
        "dali.Pipeline.run = run",
        "nvJPEG error (6): status",
    ),
}
"""What breaks DALI, and what is then said of it."""


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
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_broken_dali_is_refused_by_name_and_replaced_otherwise(fault: str, tmp_path: Path) -> None:
    """In commands of their own: by name on the command line, in a file of options, and as `auto` takes it on a GPU."""
    broken, said = FAULTS[fault]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"data": {"loader": "dali"}, "train": {"steps": 1, "device": "cpu"}}))
    on_cpu = "from maskmatch.data import loader_choice; loader_choice.AUTO['cpu', 'linux'] = 'dali'"

    def train(*options: str) -> subprocess.CompletedProcess[str]:
        code = f"{broken}\n{on_cpu}\nimport sys; from maskmatch.train import main; sys.exit(main())"
        command = [sys.executable, "-c", code, *options, "--train.steps", "1", "--train.device", "cpu"]
        return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)

    named = train("--data.loader", "dali", "--output", str(tmp_path / "named"))
    assert named.returncode == 2 and not (tmp_path / "named").exists()
    (line,) = named.stderr.splitlines()
    assert "data.loader" in line and said in line
    for name, options in (("auto", ()), ("file", ("--config", str(file)))):
        done = train(*options, "--output", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        first = done.stdout.splitlines()[0]
        assert "loader torch (" in first and said in first
        assert yaml.safe_load((tmp_path / name / "config.yaml").read_text())["data"]["loader"] == "torch"


@needs_dali
@pytest.mark.slow
def test_a_runs_own_config_is_no_asking_by_name(tmp_path: Path) -> None:
    """What DALI trained elsewhere goes on with the torch loader."""
    code = "import sys; from maskmatch.train import main; sys.exit(main())"
    options = ["--train.steps", "1", "--train.device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = [sys.executable, "-c", code, "--data.loader", "dali", *options, "--output", str(tmp_path / "run")]
    subprocess.run(first, env=environment, check=True, capture_output=True)
    given_back = ["--config", str(tmp_path / "run/config.yaml"), "--output", str(tmp_path / "again")]
    broken, said = FAULTS["import"]
    for prefix, name in (("", "loader dali;"), (f"{broken}\n", f"loader torch (DALI fails: {said}")):
        again = [sys.executable, "-c", prefix + code, *given_back]
        done = subprocess.run(again, env=environment, check=True, capture_output=True, text=True)
        assert name in done.stdout.splitlines()[0]
        given_back[-1] += "-without"
