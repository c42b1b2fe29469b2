"""Triton's kernels, interpreted, against the definition: minutes, so that the rest is in test_interpreter_beside.py."""

import pytest

from tests.ops.triton.interpreted import check_interpreted


@pytest.mark.slow
def test_conformance() -> None:
    check_interpreted("conformance", least=250)
