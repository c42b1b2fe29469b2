"""Triton's kernels, interpreted, in all that is not conformance: special values, torch, and what Triton alone has."""

import pytest

from tests.ops.triton.interpreted import check_interpreted

TRITON_ALONE = [f"triton/test_{name}.py" for name in ("operators", "sampling", "accuracy", "label_forms")]


@pytest.mark.slow
def test_special_values_and_torch() -> None:
    check_interpreted("test_special_values.py", "test_compile.py", *TRITON_ALONE, least=150)
