"""`python -m maskmatch.report RUN...`: one page to show, on one run or on several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmatch.commands.command_line import run, run_parser
from maskmatch.common.errors import UserError
from maskmatch.common.terminal import passing_progress
from maskmatch.run_files.config_file import parse

if TYPE_CHECKING:
    from maskmatch.html_report import Examined
    from maskmatch.inference.trained_model import TrainedModel

DESCRIPTION = (
    "Write one HTML file that needs no network: curves, classes, pseudo-labels over time, the best and the worst "
    "validation images under their masks, configuration, environment and speed. Several runs are compared; the "
    "pictures are then those of the first."
)
MARKED_WITHIN = 1000
"""Bytes of a file among which a page has its mark."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page that the command line asks for; returns the exit code."""
    return run(_report, argv)


def _report(argv: Sequence[str]) -> None:
    options = _options(argv)
    folders = [Path(folder) for folder in options["runs"]]
    from maskmatch.common.text_files import write_text
    from maskmatch.html_report import read_recorded, render
    from maskmatch.inference.trained_model import load

    chosen = {name: options[name] for name in ("checkpoint", "weights", "device")}
    models = [load(folder, **chosen) for folder in folders]
    path = _output(options["output"], models[0].run / "report.html")
    recorded = [read_recorded(folder) for folder in folders]
    examined = [_examine(model) for model in models]
    write_text(path, render(list(zip(models, recorded, examined, strict=True))))
    print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _options(argv: Sequence[str]) -> dict[str, Any]:
    parser = run_parser("maskmatch.report", DESCRIPTION, several=True)
    parser.add_argument(
        "--output", type=str | None, default=None, help="HTML file to write; default RUN/report.html, of the first run."
    )
    options = parse(parser, argv)
    folders = [Path(folder).resolve() for folder in options["runs"]]
    if len(set(folders)) < len(folders):
        raise UserError(f"runs: expected each once, got {' '.join(options['runs'])}")
    if len(folders) > 1 and options["checkpoint"] not in ("best", "last"):
        raise UserError(f"checkpoint: expected best or last for several runs, got {options['checkpoint']}")
    return options


def _output(given: str | None, default: Path) -> Path:
    """Where to write; an earlier report is replaced, any other file is not."""
    from maskmatch.common.text_files import writable_folder

    path = Path(given) if given else default
    if path.suffix != ".html":
        raise UserError(f"output: expected a .html file, got {path}")
    if path.exists() and not (path.is_file() and _is_report(path)):
        raise UserError(f"output: expected no file, or an earlier report, found another: {path}")
    writable_folder(path.parent)
    return path


def _is_report(path: Path) -> bool:
    from maskmatch.html_report import MARK

    with open(path, "rb") as file:
        return MARK.encode() in file.read(MARKED_WITHIN)


def _examine(model: TrainedModel) -> Examined:
    from maskmatch.html_report import examine

    with passing_progress() as progress:
        task = progress.add_task(f"measuring {model.run}", total=None)
        return examine(model, lambda done, total: progress.update(task, completed=done, total=total))
