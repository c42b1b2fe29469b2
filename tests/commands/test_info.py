"""`python -m maskmatch.info` as one types it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import maskmatch
from maskmatch.commands.info import without_places


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("command", [["maskmatch.info"], ["maskmatch", "info"]])
def test_report(command: list[str]) -> None:
    done = run(*command, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    report = dict(line.strip().split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  "))
    assert report["torch"] == torch.__version__.split("+")[0]
    assert report["python"].startswith(platform.python_version())
    assert report["threads"].startswith("1 in torch")
    for name in ("maskmatch", "timm", "segmentation_models_pytorch", "numpy", "CPU", "cores", "system"):
        assert report[name], name
    assert "reference" in report["available"].split()
    assert any(name.lower().startswith(("nvidia-dali", "dali")) for name in report)
    columns = {len(line) - len(line.lstrip()) for line in done.stdout.splitlines()}
    assert columns == {0, 2}


def test_versions_are_known_without_metadata(without_metadata: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Our own stands in the package itself; others say theirs, and what is not there at all is not installed."""
    done = without_metadata("-c", "from importlib import metadata; metadata.version('torch')")
    assert "PackageNotFoundError" in done.stderr
    done = without_metadata("-m", "maskmatch.info")
    assert done.returncode == 0, done.stderr
    report = dict(line.strip().split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  "))
    assert (report["maskmatch"], report["torch"]) == (maskmatch.__version__, torch.__version__)
    for name in ("torchvision", "timm", "numpy", "opencv-python-headless", "pillow"):
        assert report[name][0].isdigit(), (name, report[name])


def test_hidden_devices_are_not_listed() -> None:
    assert "no usable device" in run("maskmatch.info", CUDA_VISIBLE_DEVICES="").stdout


def test_unknown_option_is_one_line() -> None:
    done = run("maskmatch.info", "--versions")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "--versions" in done.stderr


def test_a_report_says_nothing_of_whose_machine_it_is(tmp_path: Path) -> None:
    """The package lies below the home folder, and so does the interpreter; a library there is broken."""
    place = tmp_path / "home-of-all/Jane Doe/secret project"
    shutil.copytree(Path(maskmatch.__file__).parent, place / "maskmatch", ignore=shutil.ignore_patterns("_C*.so"))
    (place / "maskmatch/_C.so").write_text("no library")
    (place / "bin").mkdir()
    (place / "bin/python").symlink_to(sys.executable)
    site = str(Path(torch.__file__).parents[1])
    environment = os.environ | {"HOME": str(place.parent), "USER": "jdoe", "LOGNAME": "jdoe", "PYTHONPATH": site}
    for option in ("--report", "--no-report"):
        command = [place / "bin/python", "-m", "maskmatch.info", option]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        report = dict(re.split("  +", line.strip(), maxsplit=1) for line in done.stdout.splitlines() if line[0] == " ")
        private = [one for one in ("home-of-all", "Jane", "Doe", str(tmp_path), "secret") if one in done.stdout]
        if option == "--report":
            assert not private
            assert platform.node() not in done.stdout
            assert "_C.so" in report["problems"]
            assert report["installed in"] == "~/maskmatch" and report["interpreter"] == "~/bin/python"
        else:
            assert private and report["installed in"] == str(place / "maskmatch")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HOME/a/b/c.so: not found", "~/b/c.so: not found"),
        ("HOME", "~"),
        ("in HOME/x.", "in ~/x."),
        ("HOMEless/secret/a/b", ".../a/b"),
        ("/data/USER/env", ".../env"),
        ("/scratch/HOST/python", ".../python"),
        ("PATH=/opt/secret/x/y:/data/secret/lib/z", "PATH=.../x/y:.../lib/z"),
        ("'/opt/secret/x/y'", "'.../x/y'"),
        ("https://example.org/a/b/c", "https://example.org/a/b/c"),
        ("default avx2 and/or 1/2", "default avx2 and/or 1/2"),
    ],
)
def test_places_in_a_text(text: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "jane"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "jdoe")
    monkeypatch.setattr(platform, "node", lambda: "laptop.example.org")
    for name, value in (("HOME", str(home)), ("USER", "jdoe"), ("HOST", "laptop")):
        text = text.replace(name, value)
    assert without_places(text) == expected


def test_a_reader_that_has_read_enough() -> None:
    """As `| head -1` does, which closes the pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "maskmatch.info"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
