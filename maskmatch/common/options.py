"""Options of a command line: dataclasses as options, mistakes as one line."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from maskmatch.common.declared_types import expected
from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_text

EXIT_USER_ERROR = 2


class Parser(ArgumentParser):
    """An ArgumentParser whose errors are one line that names the option, what was expected and what was got."""

    exits: bool = True
    """Whether a mistake ends the process, as that of a command line does; else it is a UserError."""
    called_now: Mapping[str, str] = {}
    """Options of before -> what to say to who types one."""
    renew: Callable[[str], str] | None = None
    """What the text of a file of options goes through first; its UserError is the caller's to report."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Options are typed in full: part of a name would get another meaning with the next option that begins so."""
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **options: Any) -> Namespace:
        """As jsonargparse's, of a file that is read as every text of a user."""
        if not Path(path).is_file():
            return super().parse_path(path, *args, **options)
        text = read_text(Path(path), "a YAML file")
        if self.renew:
            try:
                text = self.renew(text)
            except UserError as error:
                raise UserError(f"{error}: {path}") from error
        return self.parse_string(text, os.path.basename(path), *args, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = self._one_line(message)
        if not self.exits:
            raise UserError(line) from ex
        print(f"{self.prog}: error: {line}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)

    def _one_line(self, message: str) -> str:
        """A message of jsonargparse or argparse as one line.

        Which option it is about and what was given for it stand nowhere but in the message: its exceptions carry text
        alone. What was expected is known from the option itself.
        """
        message = " ".join(message.split())
        if unknown := re.match(r"unrecognized arguments: (\S+)", message, re.IGNORECASE):
            return self._unknown(unknown[1].split("=")[0])
        if unknown := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
            return self._unknown(f"--{unknown[1]}.{unknown[2]}")
        if wrong := re.match(r'Parser key "([\w.]+)":.* value: ?(.*)', message):
            declared = next((getattr(one, "_typehint", None) for one in self._actions if one.dest == wrong[1]), None)
            if declared is not None:
                return f"{wrong[1]}: expected {expected(declared, _as_yaml(wrong[2]))}, got {wrong[2]}"
        if section := re.match(r'Parser key "([\w.]+)": ?Unable to load config (\S+)', message):
            return f"{section[1]}: expected a file of its options, got {section[2].strip(chr(39))}"
        return re.sub(r'^Parser key "([\w.]+)":', r"\1:", message)

    def _unknown(self, name: str) -> str:
        if name in self.called_now:
            return f"unknown option {name}: {self.called_now[name]}"
        if not name.startswith("-"):
            return f"unexpected argument {name}; options begin with --"
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(name, known, n=1)
        return f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else "; see --help")


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


def _as_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
