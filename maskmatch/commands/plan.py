"""`python -m maskmatch.plan`: settings chosen from a folder, as a file to edit and to train with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from maskmatch.commands.command_line import run
from maskmatch.common.errors import UserError
from maskmatch.config import Config, saved, validate
from maskmatch.data.listing.lists import format_list
from maskmatch.planning import make_plan
from maskmatch.run_files.config_file import config_parser, parse

DESCRIPTION = (
    "Look at a folder of images and masks, choose the settings of a training, and write them with their reasons. "
    "Train with --config. What is set here is kept."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the plan of a folder; returns the exit code."""
    return run(_plan, argv)


def _plan(argv: Sequence[str]) -> None:
    parser = config_parser("maskmatch.plan", DESCRIPTION)
    parser.add_argument("--output", type=str, default="plan.yaml", help="New file of the plan; its lists lie beside.")
    config = Config(**parse(parser, argv))
    validate(config)
    if config.data.root is None:
        raise UserError("data.root: expected a folder of images and masks, got none")
    file = Path(config.output or "plan.yaml")
    lists = file.with_name(f"{file.stem}-lists")
    for place in (file, lists):
        if place.exists():
            raise UserError(f"output: expected a new file, as nothing is overwritten, found {place}")
    root = Path(config.data.root)
    gpu = config.train.device != "cpu" and torch.cuda.is_available()
    plan = make_plan(root, lists, _yours(config, argv), gpu=gpu)
    lists.mkdir(parents=True)
    for part, pairs in plan.lists.items():
        text = format_list(pairs, root)
        (lists / f"{part}.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    file.write_text(plan.to_yaml(), encoding="utf-8")
    print(*plan.lines(), sep="\n")
    print(f"train with: python -m maskmatch.train --config {file}")


def _yours(config: Config, argv: Sequence[str]) -> dict[str, Any]:
    """What the command line or its files set, by full name; data.root apart."""
    named = {argument.split("=")[0].removeprefix("--") for argument in argv}
    usual = _flat(saved(Config()))
    now = _flat(saved(config))
    return {
        name: value for name, value in now.items() if (name in named or value != usual[name]) and name != "data.root"
    }


def _flat(options: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return found
