"""The emulator and its checks catch mistakes in the CUDA kernels."""

from __future__ import annotations

import pytest

from tests.csrc import mutants
from tests.csrc.mutants import MUTANTS, Mutant, emulated

pytestmark = [pytest.mark.slow, pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")]


def test_kernels_as_they_are_pass() -> None:
    mutants.check(emulated.load())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Mutant) -> None:
    assert mutants.caught_by(mutant) is not None
