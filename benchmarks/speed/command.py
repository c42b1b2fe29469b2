"""Speed comparisons: `python benchmarks/run.py {ops,step,operators,data,elsewhere,roofline,all}`.

Prints a table for each area, and what was skipped and why; --json writes {"records": [...], "skipped": [...]}, one flat
object a measurement, --csv the records as rows, --plot bar charts. --compare names what got slower since an older JSON
file. `step --components` prints what each part of the method costs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.speed.output import Record, compare, plot, print_table, text, write_csv, write_json
from benchmarks.speed.selection import Selection

AREAS = ("ops", "step", "operators", "data", "elsewhere", "roofline")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("area", choices=(*AREAS, "all"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--shapes", type=_names, default=(), metavar="A,B", help="default voc,cityscapes,builtin,camvid"
    )
    parser.add_argument("--providers", type=_names, default=(), metavar="A,B", help="default all")
    parser.add_argument("--components", action="store_true", help="step: the method with one part after the other")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the records")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="file for the records as a table")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="folder for bar charts")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="folder for a trace of each measurement")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="records of before, as --json wrote them")
    arguments = parser.parse_args(argv)
    before = _read(arguments.compare) if arguments.compare else None
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: torch finds no CUDA device")
    if arguments.components and arguments.area != "step":
        parser.error(f"--components belongs to step, got {arguments.area}")

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # a line for each use of the profiler, between those of the table
    areas = _areas(AREAS if arguments.area == "all" else [arguments.area], arguments.components)
    _check(parser, "--shapes", arguments.shapes, [name for area in areas for name in area.SHAPES])
    _check(parser, "--providers", arguments.providers, [name for area in areas for name in area.PROVIDERS])
    selection = Selection(arguments.device, arguments.shapes, arguments.providers, arguments.profile)
    records: list[Record] = []
    for area in areas:
        own: list[Record] = []
        for record in area.run(selection):
            own.append(record)
            print(*[text(record.get(column)) for column in area.COLUMNS], sep="  ", file=sys.stderr, flush=True)
        print_table(own, [name for name in area.COLUMNS if any(record.get(name) is not None for record in own)])
        records += own
    for line in selection.skipped:
        print("skipped:", line)
    if arguments.json:
        write_json(arguments.json, records, selection.skipped)
    if arguments.csv:
        write_csv(arguments.csv, records)
    if arguments.plot:
        print("charts:", *plot(arguments.plot, records))
    if before is not None:
        slower = compare(before, records)
        print("slower than before:" if slower else "nothing is slower than before", *slower, sep="\n  ")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _areas(names: Iterable[str], components: bool) -> list[ModuleType]:
    """Each with COLUMNS, SHAPES, PROVIDERS and run(selection)."""
    return [importlib.import_module(f"benchmarks.speed.{'components' if components else name}") for name in names]


def _check(parser: argparse.ArgumentParser, option: str, given: Sequence[str], known: Iterable[str]) -> None:
    names = list(dict.fromkeys(known))
    if unknown := [name for name in given if name not in names]:
        parser.error(f"{option}: expected some of {', '.join(names) or 'none here'}, got {', '.join(unknown)}")


def _read(path: Path) -> list[Record]:
    try:
        records: list[Record] = json.loads(path.read_text())["records"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"--compare must name a file that --json wrote, got {path}: {error}")
    return records
