"""The CUDA kernels on the CPU under AddressSanitizer and UBSan; `make sanitize` runs the whole conformance test so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.csrc import mutants

pytestmark = [pytest.mark.slow, pytest.mark.skipif(mutants.emulated.compiler() is None, reason="no C++ compiler")]

ROOT = str(Path(__file__).resolve().parents[2])
CHECK = "from tests.csrc import mutants; mutants.check(mutants.emulated.load('sanitized'))"
CHECK_MUTANT = """
import pathlib, sys
from tests.csrc import mutants
mutant = next(mutant for mutant in mutants.MUTANTS if mutant.name == "last elements not checked")
mutants.check(mutants.build(mutant, pathlib.Path(sys.argv[1]), "sanitized"))
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    libraries = [
        subprocess.run(
            [str(mutants.emulated.compiler()), f"-print-file-name=lib{name}.so"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    environment = {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), ROOT])),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_kernels_are_clean() -> None:
    result = run(CHECK)
    assert result.returncode == 0, result.stderr


def test_a_missing_bound_check_is_seen(tmp_path: Path) -> None:
    result = run(CHECK_MUTANT, str(tmp_path))
    assert result.returncode != 0 and "AddressSanitizer: heap-buffer-overflow" in result.stderr
