"""Speed comparisons: `python benchmarks/run.py AREA [--device cpu|cuda] [--json FILE]`.

Prints a table and, with --json, writes {"records": [...]}, one flat object a measurement.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

AREAS = ("ops",)
COLUMNS = (
    "operator",
    "shape",
    "case",
    "provider",
    "instruction_set",
    "ms_p50",
    "over_eager",
    "over_compile",
    "over_floor",
    "memory",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("area", choices=AREAS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="file for the records")
    arguments = parser.parse_args()
    records = []
    print(*COLUMNS, sep="\t")
    for record in importlib.import_module(arguments.area).run(arguments.device):
        records.append(record)
        print(*[_text(record.get(column, "")) for column in COLUMNS], sep="\t", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"records": records}, indent=1) + "\n")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
