"""Configurations as files: a run's config.yaml, and the YAML files of options that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings

from maskmatch.common.errors import UserError
from maskmatch.common.options import Parser, add_switch, bracket_lists, options_of
from maskmatch.common.text_files import read_text, write_text
from maskmatch.common.version import PACKAGE_FOLDER
from maskmatch.config import Config, check_sections, saved, validate
from maskmatch.config.former import CALLED_NOW, other_constants, renewed


def config_parser(prog: str, description: str) -> Parser:
    """The options that commands share: --config, and every part of Config."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the help: what stands below each field
    parser = Parser(prog=prog, description=description)
    parser.called_now, parser.renew = CALLED_NOW, _renewed
    parser.add_argument("--config", action="config", help="YAML file of options; those on the command line win.")
    parser.add_class_arguments(Config, skip={field.name for field in fields(Config) if "about" in field.metadata})
    purpose = "Use the compiled operators (default); --no-fused takes their plain PyTorch definition."
    add_switch(parser, "--fused", purpose, default=Config.fused)
    return parser


def add_init_from(parser: Parser) -> None:
    """The option of a run that only training has a use for."""
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="Run, checkpoint or file of weights whose whole network to start from; the classes may be others.",
    )


def parse(parser: Parser, argv: Sequence[str]) -> dict[str, Any]:
    """The options of a command line, with the data set's own YAML file below them; exits with code 2 on a mistake."""
    return options_of(parser, parser.parse_args(_with_config_of_data(bracket_lists(argv))))


def read_config(path: Path) -> Config:
    """A run's config.yaml, checked like a command line; what an older run did not know has its default.

    It is read for what has been trained, so what only the training depended on, and is a constant now, is passed over.
    Raises UserError where it cannot be read, or holds what is no option.
    """
    try:
        content = yaml.safe_load(read_text(path, "a run's configuration"))
    except yaml.YAMLError as error:
        raise UserError(f"expected a run's configuration, got {' '.join(str(error).split())}: {path}") from error
    if not isinstance(content, dict):
        raise UserError(f"expected a run's configuration, got no options: {path}")
    try:
        return config_of(renewed(check_sections(content)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def config_of(options: dict[str, Any]) -> Config:
    """The configuration with these options by section, checked like a command line, and defaults for the rest.

    Raises UserError where an option does not exist or cannot be so.
    """
    parser = config_parser("config.yaml", "The options of a run.")
    add_init_from(parser)
    parser.exits = False
    config = Config(**options_of(parser, parser.parse_object(options)))
    validate(config)
    return config


def write_config(folder: Path, config: Config, found: dict[str, Any]) -> None:
    """config.yaml reproduces the run with --config, into another folder; `found` is what `data` was resolved to."""
    options = saved(config)
    options["data"] |= found
    write_text(folder / "config.yaml", yaml.safe_dump(options, sort_keys=False))


def config_folder() -> Path:
    """Where the YAML files are: inside the installed package, or beside it in a checkout."""
    installed = PACKAGE_FOLDER / "configs"
    return installed if installed.is_dir() else PACKAGE_FOLDER.parent / "configs"


def _with_config_of_data(argv: list[str]) -> list[str]:
    """Put the data set's own YAML file first where --data.name is given and --config is not."""
    if any(argument.split("=")[0] == "--config" for argument in argv):
        return argv
    for i, argument in enumerate(argv):
        name = argument[len("--data.name=") :] if argument.startswith("--data.name=") else None
        if argument == "--data.name" and i + 1 < len(argv):
            name = argv[i + 1]
        if name and (config_folder() / f"{name}.yaml").is_file():
            return ["--config", str(config_folder() / f"{name}.yaml"), *argv]
    return argv


def _renewed(text: str) -> str:
    """The text of a file of options with today's names; as it is where it has no others."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # the parser says what is wrong
    if not isinstance(content, dict):
        return text
    sections = renewed(check_sections(content))
    for name, got, value in other_constants(content):
        raise UserError(f"{name} is no option any more, but always {value}, got {got}")
    return text if sections == content else yaml.safe_dump(sections)
