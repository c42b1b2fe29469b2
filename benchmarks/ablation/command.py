"""What each part of the method gives: trains arms x seeds, measures each on the test images, writes the tables.

    python benchmarks/ablation.py --arms main --seeds 0,1,2 --jobs 2 --config configs/camvid.yaml --data.root CAMVID

Everything that is no option of this program goes to `python -m maskmatch.train`. A run's result is a line of --results
(docs/results.jsonl); what stands there already is not run again, so the same command goes on where it was stopped, on
another machine too, and the files of two machines may be put together. Beside --results lie results.md and images/,
whose tables and plots are written anew from all lines. Runs are in runs/ablation/DATA/, each with a log beside it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

import ablation_records as results
from ablation_arms import Arm, chosen
from ablation_report import write_report
from measure import machine

from maskmatch.commands.command_line import EXIT_STOPPED, parse_train, run
from maskmatch.common.device import find_device
from maskmatch.common.errors import UserError
from maskmatch.common.signals import SIGNALS
from maskmatch.config import Config
from maskmatch.data import load_dataset
from maskmatch.training.schedules import resolve

SPLIT = "test"
AT_THE_END = 0.1  # share of the run over which the pseudo-labels' measures are averaged


@dataclass(frozen=True)
class Job:
    """One run."""

    data: str
    arm: Arm
    seed: int
    given: tuple[str, ...]  # options of maskmatch.train that all arms share
    config: Config

    @property
    def options(self) -> list[str]:
        return [*self.given, *self.arm.options, "--train.seed", str(self.seed)]

    @property
    def flat(self) -> dict[str, Any]:
        return results.flat(self.config)

    @property
    def folder(self) -> Path:
        """Runs of other options have other folders, so that none goes on with another's checkpoint."""
        digest = hashlib.sha256(json.dumps(results.identity(self.flat), sort_keys=True).encode()).hexdigest()
        return Path("runs/ablation") / self.data / f"{self.arm.name}-seed{self.seed}-{digest[:6]}"

    def __str__(self) -> str:
        return f"{self.data} {self.arm.name} seed {self.seed}"


class Processes:
    """The subprocesses that run now, to stop with this one."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], log: Path, threads: int) -> None:
        """Run a command and add what it prints to `log`.

        Raises:
            UserError: with the last line that it printed, where it failed.
            InterruptedError: it was stopped.
        """
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(results.ROOT), os.environ.get("PYTHONPATH"))))
        with open(log, "ab") as output:
            with self._lock:
                if self.stopped:
                    raise InterruptedError
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
                self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        if self.stopped or code == EXIT_STOPPED:
            raise InterruptedError
        if code:
            lines = log.read_text(errors="replace").splitlines() or [f"exit code {code}"]
            raise UserError(f"{lines[-1]} ({log})")

    def stop(self, number: int, frame: FrameType | None) -> None:
        """For SIGINT and SIGTERM: each training saves and ends."""
        self.stopped = True
        for process in list(self.running):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ablation.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--arms", default="main", help="main, ablations, or names with commas; see ablation_arms.py")
    parser.add_argument("--seeds", type=_numbers, default=[0], metavar="0,1,2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=1, help="of each run; another number changes the last bits")
    parser.add_argument("--data-name", help="what the data is called; default data.name, a folder's own name")
    parser.add_argument("--results", type=Path, default=results.ROOT / "docs" / "results.jsonl", metavar="FILE")
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
    return Path(data.root).resolve().name if data.name == "folder" and data.root else data.name


def _missing(jobs: list[Job], path: Path) -> list[Job]:
    records, _ = results.read(path)
    missing = [job for job in jobs if results.of(records, job.data, job.flat) is None]
    print(f"{len(jobs)} runs, {len(jobs) - len(missing)} of them in {path} already")
    return missing


def _run_all(jobs: list[Job], arguments: argparse.Namespace, processes: Processes) -> list[str]:
    """Run what is missing; a line for each run that failed."""
    failed = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        pending = {pool.submit(_run, job, arguments.threads, processes): job for job in jobs}
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


def _run(job: Job, threads: int, processes: Processes) -> results.Record:
    """Train, from the last checkpoint if there is one, and measure the last step's networks."""
    folder, log = job.folder, job.folder.with_name(f"{job.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m"]
    about = machine(find_device(job.config.train.device, "train.device").type) | {"threads": threads}
    with _alone(log):
        print(f"{job}: {log}", flush=True)
        resumable = ["--output", str(folder), "--resume", "auto"]
        processes.run([*program, "maskmatch.train", *job.options, *resumable], log, threads)
        measured = {}
        for weights in ("student", "teacher"):
            options = ["--split", SPLIT, "--checkpoint", "last", "--weights", weights]
            processes.run([*program, "maskmatch.evaluate", str(folder), *options], log, threads)
            name = f"{SPLIT}-whole-step_{job.config.train.steps}-{weights}.json"
            measured[weights] = json.loads((folder / "evaluation" / name).read_text())
    return _record(job, measured) | about


@contextmanager
def _alone(log: Path) -> Iterator[None]:
    """Two programs do not train in one folder."""
    with open(log, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another program is at it ({log})") from None
        yield


def _record(job: Job, measured: dict[str, dict[str, Any]]) -> results.Record:
    """What a line of the results says; IoU are fractions, `val_` those of the validation images."""
    summary = json.loads((job.folder / "summary.json").read_text())
    log = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    dataset = load_dataset(job.config.data, supervised_only=job.config.method.supervised_only)
    record = {"data": job.data, "arm": job.arm.name, "seed": job.seed, "steps": summary["steps"], "split": SPLIT}
    record |= {
        "labeled": job.config.data.labeled or job.config.data.split or "splits/labeled.txt",
        "labeled_images": len(dataset.labeled),
        "unlabeled_images": 0 if job.config.method.supervised_only else len(dataset.unlabeled),
        "test_images": measured["teacher"]["settings"]["images"],
    }
    for weights, found in measured.items():
        record[f"miou_{weights}"] = found["miou"]
        record[f"iou_{weights}"] = [row["iou"] for row in found["classes"]]
        record[f"boundary_miou_{weights}"] = found["mean_boundary_iou"]
        record[f"pixel_accuracy_{weights}"] = found["pixel_accuracy"]
        record[f"val_miou_{weights}"] = log[-1][f"miou_{weights}"]
        record[f"val_iou_{weights}"] = log[-1][f"iou_{weights}"]
    end = [line for line in log if line["step"] > (1 - AT_THE_END) * summary["steps"]]
    for name, of_pseudo_labels in (("coverage", "coverage"), ("accuracy", "pseudo_label_accuracy")):
        record[of_pseudo_labels] = _mean([line.get(name) for line in end])
        by_class = [line[f"{name}_by_class"] for line in end if f"{name}_by_class" in line]
        record[f"{of_pseudo_labels}_by_class"] = [_mean(column) for column in zip(*by_class, strict=True)]
    return (
        record
        | {
            "class_names": [row["name"] for row in measured["teacher"]["classes"]],
            "minutes": summary["steps"] * summary["step_ms"] / 60e3,  # of the steps alone
            "step_ms": summary["step_ms"],
            "peak_memory_mb": summary["peak_memory_mb"],
            "command": results.without_places(shlex.join(["python", "-m", "maskmatch.train", *job.options])),
            "options": results.without_places(shlex.join(job.given)),
        }
        | job.flat
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
