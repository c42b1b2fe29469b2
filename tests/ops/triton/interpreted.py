"""Runs the operators' tests with Triton's kernels interpreted on the CPU, in a process that sets TRITON_INTERPRET=1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OPS = Path(__file__).resolve().parent.parent


def check_interpreted(*files: str, least: int) -> None:
    """Run these files of tests/ops; a selection that finds fewer than `least` tests must not pass."""
    pytest.importorskip("triton")
    options = ["-q", "-p", "no:cacheprovider", "-k", "triton", "-W", "ignore::RuntimeWarning"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(OPS / file) for file in files)],
        cwd=OPS.parent.parent,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= least, done.stdout[-500:]
