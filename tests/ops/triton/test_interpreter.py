"""The operators' tests with Triton's kernels interpreted on the CPU, in processes that set TRITON_INTERPRET=1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OPS = Path(__file__).resolve().parent.parent
TRITON_ALONE = ["triton/test_operators.py", "triton/test_sampling.py", "triton/test_accuracy.py"]


def interpreted(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=OPS.parent.parent,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "tests"),
    [
        (["conformance"], 250),
        (["test_special_values.py", "test_compile.py", *TRITON_ALONE], 110),
    ],
    ids=["conformance", "special values, torch, Triton alone"],
)
def test_interpreted_kernels_pass(files: list[str], tests: int) -> None:
    """`tests` is a lower bound: a selection that finds nothing must not pass."""
    pytest.importorskip("triton")
    done = interpreted(*(str(OPS / file) for file in files), "-k", "triton", "-W", "ignore::RuntimeWarning")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= tests, done.stdout[-500:]
