"""`python -m maskmatch.plan`: settings chosen from a folder, as a file to edit and to train with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskmatch.commands.command_line import add_budget, run
from maskmatch.commands.planned import PLAN, lists_of, plan_folder
from maskmatch.common.allocator import keep_freed_memory
from maskmatch.common.errors import UserError
from maskmatch.config import Config, validate
from maskmatch.run_files.config_file import add_init_from, config_parser, parse

DESCRIPTION = (
    "Look at a folder of images and masks, choose the settings of a training, and write them with their reasons. "
    "Train with --config. What is set here is kept."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the plan of a folder; returns the exit code."""
    return run(_plan, argv)


def _plan(argv: Sequence[str]) -> None:
    parser = config_parser("maskmatch.plan", DESCRIPTION)
    add_init_from(parser)
    add_budget(parser)
    parser.add_argument("--output", type=str, default=PLAN, help="New file of the plan; its lists lie beside.")
    options = parse(parser, argv)
    budget = options.pop("budget")
    config = Config(**options)
    validate(config)
    file = Path(config.output or PLAN)
    for place in (file, lists_of(file)):
        if place.exists():
            raise UserError(f"output: expected a new file, as nothing is overwritten, found {place}")
    keep_freed_memory()
    plan_folder(config, argv, budget, file)
    print(f"train with: python -m maskmatch.train --config {file}")
