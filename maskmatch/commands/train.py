"""`python -m maskmatch.train`: train a student and its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from maskmatch.common.allocator import keep_freed_memory
from maskmatch.common.errors import UserError
from maskmatch.common.signals import StopSignal

NO_BUDGET = "budget: expected none but for a folder that is planned, --data.root without --data.name or a file with one"


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    with StopSignal() as stop:  # before anything that takes time, the imports too
        from maskmatch.commands.command_line import run

        interrupted = "interrupted; go on from the last checkpoint with --output and --resume"
        return run(partial(_train, stop), argv, interrupted)


def _train(stop: StopSignal, argv: Sequence[str]) -> None:
    with stop.raising():
        from maskmatch.commands.command_line import parse_command
        from maskmatch.commands.planned import is_planned, planned

        config, verbs = parse_command(argv)
        keep_freed_memory()
        if is_planned(config):
            config = planned(config, verbs, argv)
        elif verbs.budget:
            raise UserError(f"{NO_BUDGET}, got {verbs.budget}")
        # torch takes seconds to import: a wrong option should not have to wait, nor should Ctrl-C
        from maskmatch.training import train

        if verbs.dry_run:
            from maskmatch.training.memory import memory_report

            print(memory_report(config))
            return
        if verbs.profile:
            from maskmatch.training.profiling import profile

            print(profile(config, verbs.profile), end="")
            return
    train(config, stop=stop)
