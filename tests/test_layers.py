"""The package is built as docs/architecture.md draws it, and no part of it is too long to be read at once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FUNCTION, FILE = 60, 350  # lines at most


class Import(NamedTuple):
    of: str
    """A module of the package, or the package that a name is taken from."""
    line: int


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name; a folder is the module of its __init__.py."""
    found = {}
    for path in sorted((ROOT / "maskmatch").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[Import]:
    """What a module imports of the package, wherever in its file that stands."""
    for node in ast.walk(syntax(modules()[module])):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{module}, line {node.lineno}: imports name their module in full"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in inside]
        else:
            continue
        yield from (Import(name, node.lineno) for name in names if name.split(".")[0] == "maskmatch")


@cache
def floors() -> dict[str, int]:
    """Floor of each room of the drawing, by the module's name."""
    drawing = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Rooms")[1]
    rows = re.findall(r"^\| (\d+) \| `(\S+)` \|", drawing, re.MULTILINE)
    return {"maskmatch" if room == "maskmatch" else f"maskmatch.{room.replace('/', '.')}": int(n) for n, room in rows}


def room(module: str) -> str:
    """The innermost room that a module lies in."""
    return max((name for name in floors() if f"{module}.".startswith(f"{name}.")), key=len)


def test_every_folder_is_drawn() -> None:
    folders = {name for name, path in modules().items() if path.name == "__init__.py" and name.count(".") == 1}
    assert len(floors()) > len(folders) > 5
    assert folders | {"maskmatch"} <= set(floors()) <= set(modules())


def test_imports_go_down() -> None:
    wrong = []
    for module in modules():
        for imported in imports(module):
            mine, other = room(module), room(imported.of)
            if other != mine and floors()[other] >= floors()[mine]:
                wrong.append(f"{module}, line {imported.line}: {mine} imports {imported.of}, which is not below it")
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    """Not of imports inside functions either, which would hide one."""
    graph = {module: {imported.of for imported in imports(module)} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_no_module_is_hidden_by_what_it_holds() -> None:
    """`import pkg.name` gives what `pkg.name` is: no __init__.py gives a module's name to something else."""
    hidden = []
    for package, path in modules().items():
        for node in ast.walk(syntax(path)) if path.name == "__init__.py" else ():
            if isinstance(node, ast.ImportFrom) and node.module != package:
                names = [f"{package}.{alias.asname or alias.name}" for alias in node.names]
                hidden += [f"{package}, line {node.lineno}: hides {name}" for name in names if name in modules()]
    assert not hidden, "\n".join(hidden)


def test_all_fits_a_screen() -> None:
    long = []
    for folder in ("maskmatch", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            where, lines = path.relative_to(ROOT), len(path.read_text(encoding="utf-8").splitlines())
            if lines > FILE:
                long.append(f"{where}: {lines} lines")
            for node in ast.walk(syntax(path)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    lines = (node.end_lineno or first) - first + 1
                    if lines > FUNCTION:
                        long.append(f"{where}, line {first}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)


def test_files_of_the_drawing_are_there() -> None:
    drawing = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\|(?: \d+ \|)? `(\S+)` \| (.*) \|$", drawing, re.MULTILINE)
    files = [(folder, file) for folder, text in named for file in re.findall(r"`([\w/]+\.py)`", text)]
    assert len(files) > 10
    for folder, file in files:
        places = [ROOT / folder / file, ROOT / "maskmatch" / folder / file]
        assert any(place.is_file() for place in places), f"{folder}: {file}"
