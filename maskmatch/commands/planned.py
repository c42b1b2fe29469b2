"""A folder that is planned: what `maskmatch.plan` and `maskmatch.train` on a bare `--data.root` have in common."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmatch.commands.command_line import Verbs, parse_train
from maskmatch.common.errors import UserError
from maskmatch.config import Config, flat

if TYPE_CHECKING:
    from maskmatch.planning import Plan

PLAN = "plan.yaml"


def is_planned(config: Config) -> bool:
    """Whether there is a folder, and nothing that says what it is."""
    return config.data.name is None and config.data.root is not None


def lists_of(file: Path) -> Path:
    """The folder of a plan's lists, beside its file."""
    return file.with_name(f"{file.stem}-lists")


def plan_folder(config: Config, argv: Sequence[str], budget: str | None, file: Path, *beside: Path) -> Plan:
    """Look, choose, try out; print it a line a choice, and write `file` and its lists, which must not be there.

    Earlier runs of the folder are sought in runs/ and in `beside`.

    Raises:
        UserError: there is no folder, or it cannot be planned; nothing is written then.
    """
    started = time.monotonic()
    from maskmatch.planning import make_plan, this_machine, tried_out
    from maskmatch.planning.earlier import RUNS
    from maskmatch.planning.steps import seconds_of

    if config.data.root is None:
        raise UserError("data.root: expected a folder of images and masks, got none")
    if budget is not None and (config.train.steps or config.train.epochs):
        raise UserError(f"budget {budget} says how many steps there are: expected no train.steps or train.epochs")
    if budget is not None:
        seconds_of(budget)
    machine = this_machine(config.train.device)
    root, places = Path(config.data.root), (RUNS, *beside)
    chosen = make_plan(root, lists_of(file), _yours(config, argv), machine=machine, places=places)
    print(*chosen.lines(), sep="\n", flush=True)  # what follows takes a while
    plan = tried_out(chosen, machine, budget, started)
    print(*(line for line in plan.lines() if line not in chosen.lines()), sep="\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    plan.write(file)
    return plan


def planned(config: Config, verbs: Verbs, argv: Sequence[str]) -> Config:
    """The configuration of a training that is planned: by the plan in its folder where it goes on, else by a new one.

    Raises:
        UserError: as `plan_folder`; or the run is not one to plan.
    """
    from maskmatch.training.run_folder import folder_of

    if verbs.dry_run or verbs.profile:
        raise UserError("--dry_run and --profile take a folder's plan, written by maskmatch.plan, as --config")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes take a folder's plan, written by maskmatch.plan, as --config")
    folder = folder_of(config)
    file = folder / PLAN
    if not file.exists():
        if (folder / "config.yaml").exists():
            raise UserError(f"{folder} holds a run without a plan: give its --data.name or --config, to go on with it")
        plan_folder(config, argv, verbs.budget, file, folder.parent)
    elif config.resume == "never":
        raise UserError(f"{folder} already holds a plan: give another --output, or --resume to train by it")
    else:
        print(f"going on by the plan of before, {file}")
    return parse_train(["--config", str(file), *argv, "--output", str(folder)])


def _yours(config: Config, argv: Sequence[str]) -> dict[str, Any]:
    """What the command line or its files set, by full name; data.root apart."""
    named = {argument.split("=")[0].removeprefix("--") for argument in argv}
    usual, now = flat(Config()), flat(config)
    return {
        name: _plain(value)
        for name, value in now.items()
        if (name in named or value != usual[name]) and name != "data.root"
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
