"""One run of an ablation: it is trained, measured on the test images, and becomes a line of the results."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.ablation import results
from benchmarks.ablation.arms import Arm
from benchmarks.ablation.processes import Processes
from benchmarks.provenance import machine
from maskmatch.common.device import find_device
from maskmatch.common.errors import UserError
from maskmatch.config import Config
from maskmatch.data import load_dataset

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


def train_and_measure(job: Job, threads: int, processes: Processes) -> results.Record:
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
