"""Options of a command line: dataclasses as options, mistakes as one line."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_text

EXIT_USER_ERROR = 2


class Parser(ArgumentParser):
    """An ArgumentParser whose errors are one line that names the option, what was expected and what was got."""

    file: Path | None = None
    """What is read where it is no command line; a mistake in it is a UserError, for the caller to report."""

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **options: Any) -> Namespace:
        """As jsonargparse's, of a file that is read as every text of a user."""
        if not Path(path).is_file():
            return super().parse_path(path, *args, **options)
        return self.parse_string(read_text(Path(path), "a YAML file"), os.path.basename(path), *args, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [option for action in self._actions for option in action.option_strings]
        line = one_line(message, options)
        if self.file:
            raise UserError(f"{self.file}: {line}") from ex
        print(f"{self.prog}: error: {line}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def add_switch(parser: Parser, name: str, purpose: str, *, default: bool = False) -> None:
    """`--name` and `--no-name`."""
    parser.add_argument(name, action=ActionYesNo(yes_prefix="", no_prefix="no-"), default=default, help=purpose)


def options_of(parser: Parser, namespace: Namespace) -> dict[str, Any]:
    """What was parsed, by name, without the files that it came from."""
    namespace.pop("config", None)
    options: dict[str, Any] = parser.instantiate(namespace).as_dict()
    return options


def bracket_lists(argv: Sequence[str]) -> list[str]:
    """`96,128` -> `[96,128]`: lists and sizes need no quotes on the command line."""
    return [re.sub(r"^((?:--[\w.]+=)?)([\d.]+(?:,[\d.]+)+)$", r"\1[\2]", argument) for argument in argv]


def one_line(message: str, options: list[str]) -> str:
    """A parser's message as one line, with the nearest option where one was misspelt."""
    message = re.sub(r"\s+", " ", message).strip()
    if unknown := re.match(r"unrecognized arguments: (\S+)", message, re.IGNORECASE):
        return _unknown(unknown.group(1).split("=")[0], options)
    if unknown := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown(f"--{unknown.group(1)}.{unknown.group(2)}", options)
    if wrong := re.match(
        r'Parser key "([\w.]+)": (.*?)\.? (?:Got value|Given value type: .* Given value): (.*)', message
    ):
        name, problem, value = wrong.groups()
        if literal := re.search(r"Literal\[(.*?)\]", problem):
            expected = "one of " + literal.group(1).replace("'", "")
        else:
            types = re.findall(r"Expected an? (?:<class '(\w+)'>|(\w+))", problem)
            expected = " or ".join(a or b for a, b in types).replace("NoneType", "null") or problem
            if expected.startswith("list"):
                expected += ", such as [a] or [a,b]"
        return f"{name}: expected {expected}, got {value}"
    return re.sub(r'^Parser key "([\w.]+)":', r"\1:", message)


def _unknown(name: str, options: list[str]) -> str:
    if not name.startswith("-"):
        return f"unexpected argument {name}; options begin with --"
    near = difflib.get_close_matches(name, options, n=1)
    return f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else "; see --help")
