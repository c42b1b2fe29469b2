"""`python -m maskmatch.check_data`: decode a whole data set and say what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.table import Table

from maskmatch.commands.command_line import run
from maskmatch.common.errors import UserError
from maskmatch.common.terminal import passing_progress, plain_console
from maskmatch.config import Config, validate
from maskmatch.data.checking.survey import WORDS, Survey, class_shares, ignored_share, sizes, survey_dataset
from maskmatch.data.dataset import PARTS, Dataset
from maskmatch.data.decoding.files import reason
from maskmatch.data.listing.layouts import load_dataset
from maskmatch.run_files.config_file import config_parser, parse

DESCRIPTION = (
    "Decode every image and mask that training would read, and report counts, sizes, classes, leaks and files that are "
    "missing, broken or do not fit. Takes train's options; exit code 1 where something must be put right."
)
SHOWN = 20
"""Findings of a kind that are printed; all of them are in findings.txt."""
PICTURES = ("classes.png", "contact_sheet.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Check the data that the command line names; returns the exit code."""
    return run(_check_data, argv)


def _check_data(argv: Sequence[str]) -> int:
    parser = config_parser("maskmatch.check_data", DESCRIPTION)
    parser.add_argument(
        "--output", type=str | None, default=None, help="Folder of the pictures; default runs/check-NAME-DATE-TIME."
    )
    config = Config(**parse(parser, argv))
    validate(config)
    dataset = load_dataset(config.data, supervised_only=config.method.supervised_only, incomplete=True)
    folder = _folder(config)
    survey = _survey(dataset, config)
    _print_tables(survey, dataset)
    try:
        _print_findings(survey, folder)
        _save_pictures(survey, dataset, folder)
    except OSError as error:
        raise UserError(f"output: cannot write to {folder}: {reason(error)}") from error
    return 1 if survey.errors else 0


def _folder(config: Config) -> Path:
    """A folder in which nothing is overwritten."""
    name = f"check-{config.data.layout}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(config.output) if config.output else Path("runs") / name
    taken = next((folder / name for name in (*PICTURES, "findings.txt") if (folder / name).exists()), None)
    if taken:
        raise UserError(f"output: expected a folder without an earlier check, found {taken}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _survey(dataset: Dataset, config: Config) -> Survey:
    total = sum(len(getattr(dataset, part)) for part in PARTS)
    with passing_progress() as progress:
        task = progress.add_task("decoding", total=total)
        return survey_dataset(
            dataset,
            supervised_only=config.method.supervised_only,
            skip=config.data.on_error == "skip",
            progress=lambda: progress.advance(task),
        )


def _print_tables(survey: Survey, dataset: Dataset) -> None:
    console = plain_console(width=None if sys.stdout.isatty() else 120)
    images = Table("list", "images", "masks", "sizes", "ignored", title=f"{dataset.name}: {dataset.root}")
    for part, found in survey.parts.items():
        ignored = f"{ignored_share(found):.1%}" if found.pixels.any() else "-"
        images.add_row(WORDS[part], str(found.images), str(found.masks), sizes(found), ignored)
    console.print(images)
    shown = [part for part, found in survey.parts.items() if found.pixels.any()]
    classes = Table("class", "", *(f"{WORDS[part]} {what}" for part in shown for what in ("%", "images")))
    shares = {part: class_shares(survey.parts[part], dataset.num_classes) for part in shown}
    for index, name in enumerate(dataset.class_names):
        cells = [(f"{100 * shares[p][index]:.2f}", str(survey.parts[p].images_with[index])) for p in shown]
        classes.add_row(str(index), name, *(cell for pair in cells for cell in pair))
    if shown:
        console.print(classes)


def _print_findings(survey: Survey, folder: Path) -> None:
    findings = [("error", line) for line in survey.errors] + [("warning", line) for line in survey.warnings]
    for kind, lines in (("error", survey.errors), ("warning", survey.warnings)):
        for line in lines[:SHOWN]:
            print(f"{kind}: {line}")
        if len(lines) > SHOWN:
            print(f"{kind}: and {len(lines) - SHOWN} more in {folder / 'findings.txt'}")
    if findings:
        text = "".join(f"{kind}: {line}\n" for kind, line in findings)
        (folder / "findings.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    print(f"{len(survey.errors)} errors, {len(survey.warnings)} warnings")


def _save_pictures(survey: Survey, dataset: Dataset, folder: Path) -> None:
    from maskmatch.common.drawing import spared
    from maskmatch.data.checking.survey_pictures import save_class_chart, save_contact_sheet

    chart, sheet = (folder / name for name in PICTURES)
    with spared(chart, print, fatal=OSError):
        save_class_chart(chart, survey, dataset)
    with spared(sheet, print, fatal=OSError):
        save_contact_sheet(sheet, dataset)
    print("pictures: " + ", ".join(str(file) for file in (chart, sheet) if file.exists()))
