"""docs/licences.md has a reason for every dependency, and the licence that the package itself states."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONG = {"huggingface_hub", "markupsafe", "sympy"}  # the page says with what they come


def listed() -> dict[str, list[str]]:
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def declared() -> set[str]:
    """Every package that pyproject.toml names, to build, to run, to export, to test."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(
        r"^(?:requires|dependencies|dali-cuda\d+|export|docs|test|trainers) = (\[[^\n]+\]$|\[\n.*?^\])",
        text,
        re.MULTILINE | re.DOTALL,
    )
    assert len(lists) == 8
    requirements = [one for found in lists for one in ast.literal_eval(found)]
    return {re.split(r"[\[<>=;! ]", one)[0] for one in requirements} - {"maskmatch"}


def test_every_dependency_has_its_reason() -> None:
    assert len(declared()) > 25
    assert set(listed()) == declared()
    for package, (licence, purpose, _, replacement) in listed().items():
        assert licence and purpose and replacement, package


@pytest.mark.parametrize("package", sorted(listed()))
def test_the_licence_is_what_the_package_states(package: str) -> None:
    try:
        found = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        pytest.skip("not installed")
    classifiers = [one for one in found.get_all("Classifier") or [] if one.startswith("License")]
    stated = " ".join([found.get("License-Expression") or "", (found.get("License") or "")[:200], *classifiers])
    family = re.match(r"\w+", listed()[package][0])
    assert family and family[0] in stated, stated


def test_what_is_imported_is_declared() -> None:
    modules = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml", "nvidia": "nvidia-dali-cuda130"}
    modules |= {"segmentation_models_pytorch": "segmentation-models-pytorch"}
    imported = set()
    for path in (ROOT / "maskmatch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"maskmatch"}
    assert {modules.get(name, name) for name in others} - ALONG <= set(listed())
