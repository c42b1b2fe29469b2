"""The emulator offers what kernels use, rounds as a GPU does, and reports what they must not do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.emulator import emulated

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")]
THREADS = 96


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emulator")
    source = Path(__file__).with_name("emulator_cases.cu")
    objects = emulated.objects([source], emulated.RUNTIME[:2], "checked", folder)
    target = folder / "emulator_cases"
    subprocess.run([str(emulated.compiler()), *map(str, objects), "-o", str(target)], check=True)
    return target


def run(program: Path, case: str) -> str:
    return subprocess.run([str(program), case], check=True, capture_output=True, text=True).stdout.strip()


def test_warps_exchange_values_and_vote(program: Path) -> None:
    expected = [sum(range(first, first + 32)) + first for first in (0, 32, 64) for _ in range(32)]
    assert list(map(int, run(program, "warps").split())) == expected


def test_atomics_and_shared_memory(program: Path) -> None:
    assert set(run(program, "atomics").split()) == {str(sum(range(THREADS)))}
    assert list(map(int, run(program, "dynamic_memory").split())) == list(reversed(range(THREADS)))


def test_half_and_bfloat16_round_to_nearest_even(program: Path) -> None:
    assert run(program, "conversions") == "0"


@pytest.mark.parametrize(
    ("case", "report"),
    [
        ("beyond_shared", "out of bounds: store of 4 bytes"),
        ("beyond_global", "out of bounds: store of 4 bytes"),
        ("shared_race", "race: "),
        ("global_race", "race: store of 4 bytes global memory"),
        ("never_written", "nobody has written this: load of 4 bytes shared memory"),
        ("skipped_barrier", "which 1 threads never reach"),
        ("two_barriers", "while others wait at that of line"),
    ],
)
def test_mistakes_are_reported(program: Path, case: str, report: str) -> None:
    assert report in run(program, case)
