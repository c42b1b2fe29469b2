"""Speed comparisons: `python benchmarks/run.py AREA [--device cpu|cuda] [--json FILE]`.

Prints a table and, with --json, writes {"records": [...]}, one flat object a measurement.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

AREAS = ("ops", "step", "data", "roofline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("area", choices=AREAS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="file for the records")
    arguments = parser.parse_args()
    area = importlib.import_module(arguments.area)
    records = []
    print(*area.COLUMNS, sep="\t")
    for record in area.run(arguments.device):
        records.append(record)
        print(*[_text(record.get(column, "")) for column in area.COLUMNS], sep="\t", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"records": records}, indent=1) + "\n")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
