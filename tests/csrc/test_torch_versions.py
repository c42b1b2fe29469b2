"""The C++ compiles against the headers of the oldest torch that is supported and of the newest there is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.emulator import emulated

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")]

# The emulator knows nothing of torch; its stand-in for the types of the CUDA runtime is enough for host code.
SOURCES = sorted((ROOT / "csrc").rglob("*.cpp"))
CUDA_RUNTIME = emulated.EMULATOR / "include"


def compile_against(headers: Path, sources: list[Path]) -> subprocess.CompletedProcess[str]:
    """Check sources without making machine code of them."""
    (target,) = re.findall(r"TORCH_TARGET_VERSION=\w+", (ROOT / "CMakeLists.txt").read_text())
    definitions = [target, "USE_CUDA", 'MASKMATCH_CUDA_ARCHS="80"', "MASKMATCH_ISA=baseline"]
    return subprocess.run(
        [
            *(str(emulated.compiler()), "-std=c++17", "-fsyntax-only", "-fvisibility=hidden"),
            *(f"-D{definition}" for definition in definitions),
            *("-isystem", str(headers), "-isystem", str(CUDA_RUNTIME)),
            *map(str, sources),
        ],
        capture_output=True,
        text=True,
    )


def test_every_source_compiles(torch_headers: Path) -> None:
    version = re.search(r"__version__ = '(.*)'", (torch_headers.parent / "version.py").read_text())
    done = compile_against(torch_headers, SOURCES)
    assert done.returncode == 0, f"against torch {version and version[1]}:\n{done.stderr}"


@pytest.mark.parametrize("torch_headers", ["oldest"], indirect=True)
def test_a_missing_include_is_seen(torch_headers: Path, tmp_path: Path) -> None:
    """Later headers bring STD_CUDA_CHECK along; the oldest do not."""
    sources = shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    header = sources / "cuda" / "device.h"
    header.write_text(header.read_text().replace("#include <torch/csrc/stable/macros.h>\n", ""))
    done = compile_against(torch_headers, [sources / "cuda" / "patch_mask.cpp"])
    assert done.returncode != 0 and "STD_CUDA_CHECK" in done.stderr
