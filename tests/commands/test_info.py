"""`python -m maskmatch.info` as one types it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

import maskmatch


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
