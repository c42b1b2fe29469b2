"""What becomes of records: a table, JSON, CSV, bar charts, and a comparison with older ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from rich.table import Table

from maskmatch.common.terminal import plain_console

Record = dict[str, Any]

# What tells measurements of one machine apart; everything else in a record was measured or describes the machine.
IDENTITY = (
    "area", "operator", "shape", "case", "config", "component", "stream", "cache", "mode", "dtype", "provider",
    "instruction_set", "device", "threads",
)  # fmt: skip
PROVIDERS = ("provider", "instruction_set", "cache")


def print_table(records: Sequence[Record], columns: Sequence[str]) -> None:
    """The records of one area."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        numeric = any(isinstance(record.get(column), (int, float)) for record in records)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for record in records:
        table.add_row(*[text(record.get(column)) for column in columns])
    # As wide as it needs to be: a file or a pipe has no width.
    plain_console(width=None if plain_console().is_terminal else 1000).print(table)


def text(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_json(path: Path, records: Sequence[Record], skipped: Sequence[str]) -> None:
    """{"records": [...], "skipped": [...]}"""
    path.write_text(json.dumps({"records": list(records), "skipped": list(skipped)}, indent=1) + "\n")


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """One row a record; its columns are those of all records."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)


def plot(folder: Path, records: Sequence[Record]) -> list[Path]:
    """A bar chart of the median times for each area that has times: folder/AREA.png."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for area in dict.fromkeys(record["area"] for record in records):
        timed = [record for record in records if record["area"] == area and record.get("ms_p50") is not None]
        if timed:
            written.append(folder / f"{area}.png")
            _plot_area(written[-1], area, timed)
    return written


def _plot_area(path: Path, area: str, records: Sequence[Record]) -> None:
    providers = list(dict.fromkeys(_named(record, PROVIDERS) for record in records))
    cases = list(dict.fromkeys(_case(record) for record in records))
    height = 0.8 / len(providers)
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(cases) * len(providers)), layout="constrained")
    for i, provider in enumerate(providers):
        own = {_case(record): record for record in records if _named(record, PROVIDERS) == provider}
        places = [cases.index(case) + i * height for case in own]
        low = [record["ms_p50"] - record["ms_p20"] for record in own.values()]
        high = [record["ms_p80"] - record["ms_p50"] for record in own.values()]
        widths = [record["ms_p50"] for record in own.values()]
        axes.barh(places, widths, height, label=provider, xerr=(low, high), error_kw={"lw": 0.8})
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(cases))], cases, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"milliseconds, median and 20th to 80th percentile ({records[0]['machine']})")
    axes.set_title(area, loc="left")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def compare(old: Sequence[Record], new: Sequence[Record]) -> list[str]:
    """A line for each measurement that got slower by more than its spread, the worst first.

    A time is slower where its 20th percentile lies above the 80th of the old one.
    """
    before = {_key(record): record for record in old}
    slower = []
    for record in new:
        then = before.get(_key(record))
        if then is None or record.get("ms_p50") is None or then.get("ms_p50") is None:
            continue
        if record["ms_p20"] > then["ms_p80"]:
            ratio = record["ms_p50"] / then["ms_p50"]
            line = f"{_named(record, IDENTITY)}: {then['ms_p50']:.3g} -> {record['ms_p50']:.3g} ms ({ratio:.2f}x)"
            slower.append((ratio, line))
    return [line for _, line in sorted(slower, reverse=True)]


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in IDENTITY)


def _named(record: Record, names: Sequence[str]) -> str:
    return " ".join(str(record[name]) for name in names if record.get(name) not in (None, "", "none"))


def _case(record: Record) -> str:
    return _named(record, [name for name in IDENTITY[1:10] if name != "cache"])
