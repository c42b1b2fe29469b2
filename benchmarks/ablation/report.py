"""The tables and plots of benchmarks/ablation.py, from its records alone.

In the Markdown file each data set (with its labels, steps and options) has a part between two comments, which is
written anew; what stands outside of them is left as it is. Plots go to images/ beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.ablation.arms import ABLATIONS, ALL, MAIN, Arm
from benchmarks.ablation.plots import plot_ablations, plot_classes, plot_main
from benchmarks.ablation.results import Record, identity

BEGIN, END = "<!-- results of {}: written by benchmarks/ablation.py -->", "<!-- end of the results of {} -->"
TITLE = "# Results\n"


@dataclass(frozen=True)
class Group:
    """Records that differ in arm and seed alone."""

    name: str
    records: list[Record]

    def runs(self, arm: Arm) -> dict[int, Record]:
        """The last record of each seed that has the arm's configuration, under whichever name it was run."""
        full = next((record for record in reversed(self.records) if record["arm"] == "full"), None)
        if full is None:
            return {record["seed"]: record for record in self.records if record["arm"] == arm.name}
        wanted = identity(full | arm.overrides() | {"train.seed": None})
        same = (r for r in self.records if identity(r | {"train.seed": None}) == wanted)
        return {record["seed"]: record for record in same}

    def measured(self, arms: Sequence[Arm]) -> dict[str, dict[int, Record]]:
        """Arm -> seed -> record, of those that were run; a topic of which only one arm was has nothing to compare."""
        found = {arm: runs for arm in arms if (runs := self.runs(arm))}
        topics = [arm.topic for arm in found]
        return {arm.name: runs for arm, runs in found.items() if arm.topic == "main" or topics.count(arm.topic) > 1}


def write_report(path: Path, records: Sequence[Record]) -> list[Path]:
    """Write the tables into `path` and the plots beside it; returns the files."""
    images = path.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else TITLE
    written = [path]
    for group in groups(records):
        main, ablations = group.measured(MAIN), group.measured(ABLATIONS)
        lines = [_heading(group), ""]
        for what, found, draw in (
            ("main", main, plot_main),
            ("classes", main, plot_classes),
            ("ablations", ablations, plot_ablations),
        ):
            if not found:
                continue
            picture = images / f"results-{group.name}-{what}.png"
            draw(picture, found, main)
            written.append(picture)
            table = TABLES[what](found, main)
            lines += [*table, "", f"![{what}](images/{picture.name})", ""]
        lines += _commands(main | ablations)
        text = _replaced(text, group.name, "\n".join(lines))
    path.write_text(text)
    return written


def groups(records: Sequence[Record]) -> list[Group]:
    """In the order of their first records; named by data, labelled images and steps."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        found.setdefault((record["data"], record["options"], record["steps"], record["split"]), []).append(record)
    named: dict[str, Group] = {}
    for members in found.values():
        first = next((record for record in members if record["arm"] != "upper"), members[0])
        name = "{data}-{labeled_images}-{steps}".format(**first)
        number = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", other) is not None for other in named)
        name = f"{name}-{number + 1}" if number else name
        named[name] = Group(name, members)
    return list(named.values())


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and sample standard deviation of fractions, in percent."""
    mean = f"{100 * fmean(values):{form}}"
    return f"{mean} &#177; {100 * stdev(values):.1f}" if len(values) > 1 else mean


def gain(runs: dict[int, Record], over: dict[int, Record]) -> str:
    """Points of the teacher's mIoU over another arm's, seed by seed."""
    seeds = [seed for seed in runs if seed in over]
    if not seeds or runs == over:
        return ""
    return spread([runs[seed]["miou_teacher"] - over[seed]["miou_teacher"] for seed in seeds], "+.1f")


def _heading(group: Group) -> str:
    shown = next((record for record in group.records if record["arm"] != "upper"), group.records[0])
    unlabeled = max(record["unlabeled_images"] for record in group.records)
    return (
        f"{shown['labeled_images']} labelled (`{shown['labeled']}`) and {unlabeled} unlabelled images, "
        f"{shown['steps']} steps. mIoU of the last step's networks on the {shown['test_images']} {shown['split']} "
        "images, in percent, mean and sample deviation over the seeds. Boundary IoU is the teacher's, and so are the "
        "gains, seed by seed, in points. Coverage and right: share of the pseudo-labels' pixels above the threshold, "
        "and of those the right ones, over the last tenth of the run. Minutes are those of the steps alone, on one of "
        "the machines below."
    )


def _main_table(arms: dict[str, dict[int, Record]], main: dict[str, dict[int, Record]]) -> list[str]:
    supervised, consistency = main.get("supervised", {}), main.get("consistency", {})
    columns: dict[str, Callable[[dict[int, Record]], str]] = {
        "teacher": lambda runs: spread(_all(runs, "miou_teacher")),
        "student": lambda runs: spread(_all(runs, "miou_student")),
        "boundary IoU": lambda runs: _mean(runs, "boundary_miou_teacher"),
        "teacher on val": lambda runs: spread(_all(runs, "val_miou_teacher")),
        "over labels alone": lambda runs: gain(runs, supervised),
        "over consistency": lambda runs: gain(runs, consistency),
        "coverage": lambda runs: _mean(runs, "coverage"),
        "right": lambda runs: _mean(runs, "pseudo_label_accuracy"),
        "minutes": lambda runs: f"{fmean(_all(runs, 'minutes')):.1f}",
        "seeds": lambda runs: str(len(runs)),
    }
    rows = [[ALL[name].label, *(cell(runs) for cell in columns.values())] for name, runs in arms.items()]
    return _table(["", *columns], rows)


def _class_table(arms: dict[str, dict[int, Record]], main: dict[str, dict[int, Record]]) -> list[str]:
    names = next(iter(next(iter(arms.values())).values()))["class_names"]
    rows = [
        [
            ALL[name].label,
            *(_percent([record["iou_teacher"][i] for record in runs.values()]) for i in range(len(names))),
        ]
        for name, runs in arms.items()
    ]
    return ["IoU of the teacher by class:", "", *_table(["", *names], rows)]


def _ablation_table(arms: dict[str, dict[int, Record]], main: dict[str, dict[int, Record]]) -> list[str]:
    full = main.get("full", {})
    rows, topic = [], ""
    for name, runs in arms.items():
        arm = ALL[name]
        same = " (MaskMatch)" if runs == full else ""
        rows.append(
            [
                arm.topic if arm.topic != topic else "", f"{arm.label}{same}", spread(_all(runs, "miou_teacher")),
                spread(_all(runs, "miou_student")), gain(runs, full), _mean(runs, "coverage"),
                _mean(runs, "pseudo_label_accuracy"), f"{fmean(_all(runs, 'minutes')):.1f}", str(len(runs)),
            ]
        )  # fmt: skip
        topic = arm.topic
    columns = ["", "", "teacher", "student", "over MaskMatch", "coverage", "right", "minutes", "seeds"]
    return ["One option of the full method changed:", "", *_table(columns, rows)]


TABLES = {"main": _main_table, "classes": _class_table, "ablations": _ablation_table}


def _commands(arms: dict[str, dict[int, Record]]) -> list[str]:
    """Of every row, with S for the seed; and where it was run."""
    records = [record for runs in arms.values() for record in runs.values()]
    rows = []
    for name, runs in arms.items():
        if name != "full" and runs == arms.get("full"):
            continue
        command = re.sub(r"--train\.seed \d+$", "--train.seed S", next(iter(runs.values()))["command"])
        commits = sorted({str(record["commit"]) for record in runs.values()})
        shown = f"{ALL[name].topic}: {ALL[name].label}" if ALL[name].topic != "main" else ALL[name].label
        rows.append([shown, ", ".join(map(str, sorted(runs))), f"`{command}`", ", ".join(commits)])
    machines = sorted({"{machine}, {threads} thread(s) a run, torch {torch}".format(**record) for record in records})
    dates = sorted({record["date"] for record in records})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return [*_table(["", "seeds S", "command", "commit"], rows), "", f"{'; '.join(machines)}; {when}."]


def _all(runs: dict[int, Record], name: str) -> list[float]:
    return [record[name] for record in runs.values()]


def _mean(runs: dict[int, Record], name: str) -> str:
    return _percent(_all(runs, name))


def _percent(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * fmean(known):.1f}" if known else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def _replaced(text: str, name: str, content: str) -> str:
    """The text with a new part of that name, in its old place or under a heading at the end."""
    begin, end = BEGIN.format(name), END.format(name)
    part = f"{begin}\n\n{content}\n\n{end}"
    if begin in text and end in text:
        return text[: text.index(begin)] + part + text[text.index(end) + len(end) :]
    return f"{text.rstrip()}\n\n## {name}\n\n{part}\n"
