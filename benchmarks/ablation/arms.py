"""The arms of benchmarks/ablation.py: what each is called, and which options of maskmatch.train make it.

An arm is the training's own options plus the arm's. A new arm is one line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Arm:
    """`topic` is the table it stands in, `label` what it is called there."""

    name: str
    topic: str
    label: str
    options: tuple[str, ...] = ()

    def overrides(self) -> dict[str, Any]:
        """What the options set, by their names in a flat configuration: {"method.lcr": False}."""
        names, values = self.options[::2], self.options[1::2]
        return {name.removeprefix("--"): yaml.safe_load(value) for name, value in zip(names, values, strict=True)}


CONSISTENCY = ("--method.lcr", "false", "--method.scales", "[1.0]")

MAIN = (
    Arm("supervised", "main", "labelled images alone", ("--method.supervised_only", "true")),
    Arm("consistency", "main", "consistency", CONSISTENCY),
    Arm("ms", "main", "consistency + MS", ("--method.lcr", "false")),
    Arm("lcr", "main", "consistency + LCR", ("--method.scales", "[1.0]")),
    Arm("full", "main", "MaskMatch"),
    Arm(
        "upper", "main", "all images labelled",
        ("--method.supervised_only", "true", "--data.labeled", "splits/train.txt"),
    ),
)  # fmt: skip


def _varied(topic: str, name: str, option: str, values: Sequence[object]) -> list[Arm]:
    """An arm for each value of one option of the full method."""
    return [Arm(f"{name}-{value}", topic, str(value), (f"--method.{option}", str(value))) for value in values]


ABLATIONS = (
    *_varied("share of the patches that are hidden", "ratio", "mask_ratio", (0.3, 0.5, 0.7, 0.9)),
    *_varied("side of a patch in pixels", "patch", "patch_size", (4, 8, 16, 32)),
    *_varied("weight of L_m", "lambda", "lambda_m", (0.2, 0.5, 1.0)),
    *_varied("choice of the hidden patches", "masking", "masking", ("random", "block", "grid")),
    *_varied("pixels of the masked view's loss", "region", "ablation.region", ("all", "visible", "hidden")),
    *_varied("masked view", "view", "ablation.masked_view", ("weak", "strong")),
    Arm("lcr-task", "proxy task", "segmentation (LCR)"),
    Arm(
        "reconstruction", "proxy task", "reconstruction of the hidden patches",
        ("--method.lcr", "false", "--method.ablation.reconstruction", "true"),
    ),
    Arm("scales-1", "scales of the teacher", "1", ("--method.scales", "[1.0]")),
    Arm("scales-2", "scales of the teacher", "1, 1.5", ("--method.scales", "[1.0, 1.5]")),
    Arm("scales-3", "scales of the teacher", "0.75, 1, 1.5", ("--method.scales", "[0.75, 1.0, 1.5]")),
    *_varied("average over the scales", "average", "ablation.average", ("probability", "logit")),
    Arm("class-tau", "against lost classes", "a threshold for each class", ("--method.class_thresholds", "true")),
    Arm("one-tau", "against lost classes", "one threshold for all", ("--method.class_thresholds", "false")),
    Arm(
        "consistency-class-tau", "against lost classes", "a threshold for each class, consistency alone",
        (*CONSISTENCY, "--method.class_thresholds", "true"),
    ),
    Arm(
        "consistency-one-tau", "against lost classes", "one threshold for all, consistency alone",
        (*CONSISTENCY, "--method.class_thresholds", "false"),
    ),
    *_varied("rare classes named more often: alpha", "alpha", "logit_adjustment", (0.0, 0.5)),
    *(
        Arm(
            f"consistency-alpha-{alpha}", "rare classes named more often: alpha", f"{alpha}, consistency alone",
            (*CONSISTENCY, "--method.logit_adjustment", alpha),
        )
        for alpha in ("0.0", "0.5")
    ),
    *_varied("momentum of the teacher", "momentum", "ema_momentum", (0.99, 0.996, 0.999)),
    *_varied("threshold", "threshold", "threshold", (0.7, 0.8, 0.9, 0.95)),
)  # fmt: skip

ALL = {arm.name: arm for arm in (*MAIN, *ABLATIONS)}


def chosen(names: str) -> list[Arm]:
    """`main`, `ablations` or the names of arms, separated by commas.

    Raises:
        ValueError: a name is no arm's.
    """
    groups = {"main": MAIN, "ablations": ABLATIONS}
    found: dict[str, Arm] = {}
    for name in names.split(","):
        if name not in groups and name not in ALL:
            raise ValueError(f"--arms: expected main, ablations or some of {', '.join(ALL)}, got {name}")
        found |= {arm.name: arm for arm in groups.get(name) or [ALL[name]]}
    return list(found.values())
