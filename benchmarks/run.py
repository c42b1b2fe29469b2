"""Speed comparisons: `python benchmarks/run.py {ops,step,data,roofline,all}`.

Prints a table for each area; --json writes {"records": [...]}, one flat object a measurement, --csv the same as rows,
--plot bar charts. --compare names what got slower since an older JSON file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from reporting import Record, compare, plot, print_table, text, write_csv, write_json

AREAS = ("ops", "step", "data", "roofline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("area", choices=(*AREAS, "all"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the records")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="file for the records as a table")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="folder for bar charts")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="records of before, as --json wrote them")
    arguments = parser.parse_args()
    before = _read(arguments.compare) if arguments.compare else None

    records: list[Record] = []
    for name in AREAS if arguments.area == "all" else [arguments.area]:
        area = importlib.import_module(name)
        own: list[Record] = []
        for record in area.run(arguments.device):
            own.append(record)
            print(*[text(record.get(column)) for column in area.COLUMNS], sep="  ", file=sys.stderr, flush=True)
        print_table(own, area.COLUMNS)
        records += own
    if arguments.json:
        write_json(arguments.json, records)
    if arguments.csv:
        write_csv(arguments.csv, records)
    if arguments.plot:
        print("charts:", *plot(arguments.plot, records))
    if before is not None:
        slower = compare(before, records)
        print("slower than before:" if slower else "nothing is slower than before", *slower, sep="\n  ")


def _read(path: Path) -> list[Record]:
    try:
        records: list[Record] = json.loads(path.read_text())["records"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"--compare must name a file that --json wrote, got {path}: {error}")
    return records


if __name__ == "__main__":
    main()
