"""How many operators a training step takes, by its phases: what Python issues, and a GPU waits for where it is fast.

Counted on a CPU, where the operators that are fused count one each, as they do on a GPU; not counted is what computes
nothing: `detach` and the making of empty tensors. The count depends on the network and the options, not on sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.provenance import ROOT, machine
from benchmarks.speed.selection import Selection
from maskmatch.commands.command_line import parse_train
from maskmatch.common.batch import Batch
from maskmatch.method import Teacher
from maskmatch.method.folding import find_folds
from maskmatch.models import Student, build_student
from maskmatch.training.memory import KNOWN_CLASSES
from maskmatch.training.phases import Phases
from maskmatch.training.pseudo_label_watch import PseudoLabelCounter
from maskmatch.training.step import TrainStep, make_method

CONFIGS: dict[str, list[str]] = {
    "voc": ["--config", str(ROOT / "configs" / "voc.yaml")],
    "cityscapes": ["--config", str(ROOT / "configs" / "cityscapes.yaml")],
    "builtin": [],
}
SHAPES = tuple(CONFIGS)
PROVIDERS = ("as it is", "folded")
"""The second is what runs on a GPU: the teacher with its BatchNorms in its convolutions."""
BETWEEN = "between"
COLUMNS = (
    "config", "provider", "operators", "bare_passes", "teacher", "student forward", "loss", "backward", "optimizer",
    "EMA", BETWEEN,
)  # fmt: skip
IMAGES, LEAST_SIDE = 2, 64


def run(selection: Selection) -> Iterator[dict[str, Any]]:
    """One record for each configuration and provider."""
    for config in selection.chosen_shapes(CONFIGS):
        for provider in selection.chosen_providers(PROVIDERS):
            step, batch = _step(CONFIGS[config], folded=provider == "folded")
            step([batch], 0)  # makes the optimizer's state
            counted = _Operators()
            step.phases = _Named(counted)
            with counted:
                step([batch], 1)
            yield machine("cpu") | {
                "area": "operators",
                "config": config,
                "provider": provider,
                "operators": counted.phases.total(),
                "bare_passes": _bare_passes(step, batch),
                **counted.phases,
            }


class _Operators(TorchDispatchMode):
    """Counts what runs inside, by phase."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = BETWEEN
        self.phases: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().partition("::")[2].partition(".")[0]
        if function.namespace != "prim" and name != "detach" and not name.startswith("empty"):
            self.phases[self.phase] += 1
        return function(*args, **(kwargs or {}))


class _Named(Phases):
    """Tells the count which phase it is in."""

    def __init__(self, counted: _Operators) -> None:
        super().__init__(torch.device("cpu"))
        self.counted = counted

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.counted.phase, before = name, self.counted.phase
        yield
        self.counted.phase = before


def _step(options: list[str], *, folded: bool) -> tuple[TrainStep, Batch]:
    """A step with every loss live, of random weights and few small images, and a batch for it."""
    config = parse_train([*options, "--train.device", "cpu"])
    classes = KNOWN_CLASSES[config.data.layout]
    student = build_student(replace(config.model, encoder_weights="none"), classes)
    method = make_method(replace(config.method, warmup_steps=0, ramp_steps=0), student, classes)
    step = TrainStep(
        student.network,
        Teacher(student.network, momentum=0.9),
        method,
        replace(config.train, steps=10),
        counter=PseudoLabelCounter(classes, config.method.threshold, "cpu"),
        folds=find_folds(student.network, student.padded_size(LEAST_SIDE)) if folded else (),
    )
    return step, _batch(student, classes)


def _batch(student: Student, classes: int) -> Batch:
    side = student.padded_size(LEAST_SIDE)

    def pixels(high: int, *channels: int) -> Tensor:
        return torch.randint(high, (IMAGES, *channels, side, side), dtype=torch.uint8)

    weak, strong = pixels(256, 3), pixels(256, 3)
    return Batch(pixels(256, 3), pixels(classes), weak, strong, pixels(1) == 0, torch.arange(IMAGES))


def _bare_passes(step: TrainStep, batch: Batch) -> int:
    """Of the networks alone: the teacher's forwards, the student's forwards and backwards."""
    counted = _Operators()
    student, teacher = step.network, step.teacher.network
    views = step.method.scaled_views(batch)
    passes: list[Callable[[], Any]] = [lambda: student(views[-1]).sum().backward()] * len(
        step.method.ramp_up.weights(1)
    )
    with counted:
        with torch.no_grad():
            for view in views:
                teacher(view)
        for one in passes:
            one()
    student.zero_grad(set_to_none=True)
    return counted.phases.total()
