"""What each part of the method gives: trains arms x seeds, measures each on the test images, writes the tables.

    python benchmarks/ablation.py --arms main --seeds 0,1,2 --jobs 2 --config configs/camvid.yaml --data.root CAMVID

Everything that is no option of this program goes to `python -m maskmatch.train`. A run's result is a line of --results
(docs/results.jsonl); what stands there already is not run again, so the same command goes on where it was stopped, on
another machine too, and the files of two machines may be put together. Beside --results lie results.md and images/,
whose tables and plots are written anew from all lines. Runs are in runs/ablation/DATA/, each with a log beside it.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks.ablation import results
from benchmarks.ablation.arms import Arm, chosen
from benchmarks.ablation.job import Job, train_and_measure
from benchmarks.ablation.processes import Processes
from benchmarks.ablation.report import write_report
from benchmarks.provenance import ROOT
from maskmatch.commands.command_line import EXIT_STOPPED, parse_train
from maskmatch.common.errors import UserError
from maskmatch.common.signals import SIGNALS
from maskmatch.config import Config
from maskmatch.training.schedules import resolve


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ablation.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--arms", default="main", help="main, ablations, or names with commas; see ablation/arms.py")
    parser.add_argument("--seeds", type=_numbers, default=[0], metavar="0,1,2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=1, help="of each run; another number changes the last bits")
    parser.add_argument("--data-name", help="what the data is called; default data.name, a folder's own name")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results.jsonl", metavar="FILE")
    parser.add_argument("--only-report", action="store_true", help="write the tables and plots, run nothing")
    arguments, given = parser.parse_known_args(argv)
    failed: list[str] = []
    processes = Processes()
    if not arguments.only_report:
        before = [signal.signal(number, processes.stop) for number in SIGNALS]
        try:
            failed = _run_all(_missing(_plan(arguments, given), arguments.results), arguments, processes)
        finally:
            for signal_number, handler in zip(SIGNALS, before, strict=True):
                signal.signal(signal_number, handler)
    records, damaged = results.read(arguments.results)
    for number in damaged:
        print(f"warning: line {number} of {arguments.results} is damaged and left out", file=sys.stderr)
    print("written:", *write_report(arguments.results.with_suffix(".md"), records))
    for line in failed:
        print(line, file=sys.stderr)
    return EXIT_STOPPED if processes.stopped else int(bool(failed))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _plan(arguments: argparse.Namespace, given: list[str]) -> list[Job]:
    """The runs that were asked for, seed by seed; arms that are one and the same run once."""
    try:
        arms = chosen(arguments.arms)
    except ValueError as error:
        raise UserError(str(error)) from error
    if parse_train(given).train.epochs is not None:
        raise UserError("train.epochs: arms must take equal steps, give --train.steps")
    full = results.flat(_config(given))
    arms = list(dict.fromkeys(_said(arm, results.canonical(arm, full)) for arm in arms))
    jobs = []
    for seed in arguments.seeds:
        for arm in arms:
            config = _config([*given, *arm.options, "--train.seed", str(seed)])
            jobs.append(Job(arguments.data_name or _data_name(config), arm, seed, tuple(given), config))
    return jobs


def _said(asked: Arm, arm: Arm) -> Arm:
    if asked != arm:
        print(f"{asked.name} is {arm.name}")
    return arm


def _config(options: list[str]) -> Config:
    """With everything filled in that follows from the number of steps."""
    return resolve(parse_train(options), 1)


def _data_name(config: Config) -> str:
    data = config.data
    return Path(data.root).resolve().name if data.layout == "folder" and data.root else data.layout


def _missing(jobs: list[Job], path: Path) -> list[Job]:
    records, _ = results.read(path)
    missing = [job for job in jobs if results.of(records, job.data, job.flat) is None]
    print(f"{len(jobs)} runs, {len(jobs) - len(missing)} of them in {path} already")
    return missing


def _run_all(jobs: list[Job], arguments: argparse.Namespace, processes: Processes) -> list[str]:
    """Run what is missing; a line for each run that failed."""
    failed = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        pending = {pool.submit(train_and_measure, job, arguments.threads, processes): job for job in jobs}
        for number, future in enumerate(as_completed(pending), 1):
            job = pending[future]
            try:
                record = future.result()
            except InterruptedError:
                continue
            except UserError as error:
                failed.append(f"{job} failed: {error}")
                print(failed[-1], flush=True)
                continue
            results.append(arguments.results, record)
            line = "{miou_teacher:.4f}, student {miou_student:.4f} on {split}; {minutes:.1f} minutes".format(**record)
            print(f"[{number}/{len(jobs)}] {job}: mIoU teacher {line}", flush=True)
    return failed
