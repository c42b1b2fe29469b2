"""docs/results.jsonl, one flat JSON object a run, and what makes two runs the same one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.ablation.arms import ALL, Arm
from benchmarks.provenance import ROOT
from maskmatch.config import Config
from maskmatch.config import flat as flat_config
from maskmatch.config.former import renewed_flat

Record = dict[str, Any]

# Options that leave a run's last weights as they are, or say where its data lies.
FREE = {
    *("data.root", "data.workers", "data.cache", "data.on_error"),
    *("data.num_classes", "data.class_names", "data.palette"),
    *("train.device", "train.validate_every", "train.checkpoint_every", "train.keep_checkpoints"),
    *("train.checkpoint_activations", "train.select"),
}  # fmt: skip
# Options of losses that a run may not have.
UNLABELED = (
    "consistency", "cutmix", "threshold", "class_thresholds", "logit_adjustment", "lambda_u", "scales",
    "ablation.average", "warmup_steps", "ramp_steps", "strong_updates_bn",
)  # fmt: skip
MASKED = (
    "lcr", "lambda_m", "masking", "mask_ratio", "patch_size", "masked_updates_bn",
    "ablation.reconstruction", "ablation.lambda_r", "ablation.masked_view", "ablation.region",
)  # fmt: skip


def flat(config: Config) -> dict[str, Any]:
    """A run's options as JSON has them, by their names, without those that do not change what comes out."""
    stored: dict[str, Any] = json.loads(without_places(json.dumps(flat_config(config))))
    return {name: value for name, value in stored.items() if name not in FREE}


@cache
def _defaults() -> dict[str, Any]:
    return flat(Config())


def without_places(text: str) -> str:
    """The same without this machine's folders: $MASKMATCH_TEST_DATA for the one that it names."""
    if folder := os.environ.get("MASKMATCH_TEST_DATA", "").rstrip("/"):
        text = text.replace(folder, "$MASKMATCH_TEST_DATA")
    return text.replace(f"{ROOT}/", "")


def identity(options: dict[str, Any]) -> dict[str, Any]:
    """What the outcome depends on of `flat` options, or of a record: what an older one lacks has today's default."""
    known = _defaults()
    filled = known | {name: value for name, value in options.items() if name in known}
    unused: list[str] = []
    if filled["method.supervised_only"]:
        unused = ["data.unlabeled", *(f"method.{name}" for name in (*UNLABELED, *MASKED))]
    elif not (filled["method.lcr"] or filled["method.ablation.reconstruction"]):
        unused = [f"method.{name}" for name in MASKED]
    return {name: value for name, value in filled.items() if name not in unused}


def canonical(arm: Arm, full: dict[str, Any]) -> Arm:
    """The first arm that is the same run as `arm`, `full` itself before all; `full` is that arm's flat options."""
    wanted = identity(full | arm.overrides())
    return next(other for other in (ALL["full"], *ALL.values()) if identity(full | other.overrides()) == wanted)


def read(path: Path) -> tuple[list[Record], list[int]]:
    """The records of a file, none where there is no file; and the numbers of damaged lines, which are left out."""
    records, damaged = [], []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(renewed_flat(record))
        elif line.strip():
            damaged.append(number)
    return records, damaged


def append(path: Path, record: Record) -> None:
    """Add a record for good, whoever else writes to the file; a last line that was cut short goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        last = content[content.rfind(b"\n") + 1 :]
        if last and _is_json(last):
            file.write(b"\n")  # whole, but for its end
        elif last:
            file.truncate(len(content) - len(last))
        file.write(json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def of(records: Sequence[Record], data: str, options: dict[str, Any]) -> Record | None:
    """The last record of a run on `data` with these flat options."""
    wanted = identity(options)
    return next((r for r in reversed(records) if r["data"] == data and identity(r) == wanted), None)
