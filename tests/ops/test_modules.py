"""What `import maskmatch.ops.X` finds is a module, whatever the functions are called."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

import maskmatch.nn
import maskmatch.ops


@pytest.mark.parametrize("package", [maskmatch.ops, maskmatch.nn], ids=lambda package: package.__name__)
def test_no_function_hides_its_module(package: ModuleType) -> None:
    names = [found.name for found in pkgutil.iter_modules(package.__path__)]
    assert names
    for name in names:
        module = importlib.import_module(f"{package.__name__}.{name}")
        assert getattr(package, name) is module


def test_public_modules_are_the_definition_and_the_triton_kernels() -> None:
    names = {found.name for found in pkgutil.iter_modules(maskmatch.ops.__path__)}
    assert {name for name in names if not name.startswith("_")} == {"philox", "reference", "triton"}
