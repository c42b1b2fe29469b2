"""The configurations whose steps are timed, with their data: the built-in set, CamVid, and drawn photographs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from benchmarks.provenance import ROOT
from benchmarks.speed.photographs import write_list, write_photographs
from benchmarks.speed.selection import Selection
from maskmatch.training.memory import KNOWN_CLASSES

EVERY_BRANCH = ["--method.warmup_steps", "0", "--method.ramp_steps", "0", "--train.steps", "1000000"]


class Photographs(NamedTuple):
    """What is drawn in place of a data set."""

    images: int
    height: int
    width: int


DRAWN = {"voc": Photographs(240, 375, 500), "cityscapes": Photographs(40, 1024, 2048)}
ON_CPU = ("builtin", "camvid")
"""The rest takes minutes a step there, and is timed where it is asked for by name."""
SHAPES = (*ON_CPU, *DRAWN)


def chosen_configs(selection: Selection, folder: Path) -> dict[str, list[str]]:
    """Configuration -> options of the training, every loss live from the first step; data is drawn into `folder`."""
    found = {}
    for name in selection.chosen_shapes(SHAPES if selection.device == "cuda" or selection.shapes else ON_CPU):
        options = [*EVERY_BRANCH, "--train.device", selection.device]
        if name != "builtin":
            options += ["--config", str(ROOT / "configs" / f"{name}.yaml")]
        if name == "camvid":
            data = os.environ.get("MASKMATCH_TEST_DATA")
            if not data:
                selection.skip("step, camvid: MASKMATCH_TEST_DATA names no folder with data/camvid")
                continue
            options += ["--data.root", f"{data}/data/camvid"]
        elif name in DRAWN:
            options += _drawn(name, folder / name)
        found[name] = options
    return found


def _drawn(name: str, root: Path) -> list[str]:
    """Options of photographs in place of the data set: every third with its mask, one held out, random weights."""
    lines = write_photographs(root, *DRAWN[name], KNOWN_CLASSES[name])
    parts = {"labeled": lines[1::3], "unlabeled": lines[2::3] + lines[3::3], "val": lines[:1]}
    for part, chosen in parts.items():
        write_list(root / f"{part}.txt", chosen)
    options = ["--data.name", "folder", "--data.root", str(root), "--data.num_classes", str(KNOWN_CLASSES[name])]
    options += [word for part in parts for word in (f"--data.{part}", f"{part}.txt")]
    return [*options, "--model.encoder_weights", "none", "--train.epochs", "null"]
