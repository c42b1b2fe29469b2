"""What keeps one library safe on every CPU, and the messages of a build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIMD = ROOT / "csrc" / "cpu" / "simd" / "kernels.cpp"
compiler = shutil.which("c++") or shutil.which("g++")


@pytest.mark.slow
@pytest.mark.skipif(compiler is None or shutil.which("nm") is None, reason="no compiler or no nm")
def test_vector_code_offers_no_symbol_that_another_file_could_take(tmp_path: Path) -> None:
    """A weak symbol (an inline function of a header) compiled with AVX-512 might be the one that everybody gets."""
    target = tmp_path / "kernels.o"
    flags = ["-std=c++17", "-O1", "-fPIC", "-w", "-DMASKMATCH_ISA=baseline"]
    subprocess.run([str(compiler), *flags, "-c", str(SIMD), "-o", str(target)], check=True)
    symbols = subprocess.run(["nm", "-C", str(target)], check=True, capture_output=True, text=True).stdout
    weak = [line for line in symbols.splitlines() if line.split()[-2] in "WVu" or " W " in line or " V " in line]
    assert not weak
    assert "kernels" in symbols


@pytest.mark.parametrize(
    ("environment", "message"),
    [({"MASKMATCH_CUDA": "yes"}, "maskmatch: MASKMATCH_CUDA must be 1, 0 or auto, got 'yes'")],
)
def test_wrong_build_option_is_one_line(environment: dict[str, str], message: str) -> None:
    code = f"""
import sys; sys.argv = ["setup.py", "--version"]
import runpy; setup = runpy.run_path({str(ROOT / "setup.py")!r})
setup["want_cuda"](setup["torch_folder"]())
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == message
