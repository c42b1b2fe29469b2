"""Each remedy is taken once, at the right sign; and a run that was stopped after one goes on as it would have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from maskmatch.commands.command_line import parse_train
from maskmatch.common.signals import StopError
from maskmatch.config import Config, MethodConfig, TrainConfig
from maskmatch.method import MaskMatch, PseudoLabels
from maskmatch.metrics import Metrics, Validator
from maskmatch.training import train as train_in_python
from maskmatch.training.pseudo_label_watch import CollapseWatch, Counts
from maskmatch.training.remedies import Remedies
from tests.training.stop_after import StopAfter

Train = Callable[..., int]


@pytest.fixture
def remedies() -> Remedies:
    """Of a run of 100 steps, 10 of warm-up and 10 of ramp."""
    config = Config(method=MethodConfig(warmup_steps=10, ramp_steps=10), train=TrainConfig(steps=100))
    method = MaskMatch(config.method)
    train_step: Any = SimpleNamespace(method=method, reconfigure=method.reconfigure)
    return Remedies(config, train_step, CollapseWatch(["a", "b"], config.method.threshold))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", ["the threshold is eased from 0.95 to 0.807", "the warm-up is prolonged to step 50"]),
        ("one 0", ["the warm-up is prolonged to step 50", "the unlabelled losses weigh 0.3 of what they did"]),
        ("lost b", ["the threshold is eased from 0.95 to 0.807", "the unlabelled losses weigh 0.3 of what they did"]),
    ],
)
def test_each_once(remedies: Remedies, kind: str, said: list[str]) -> None:
    assert [remedies.on_warnings([kind], 40) for _ in range(4)] == [[said[0]], [said[1]], [], []]


def test_what_a_remedy_changes(remedies: Remedies) -> None:
    method = remedies.train_step.method
    remedies.on_warnings(["empty", "one 1", "lost a"], 40)
    assert method.ramp_up.weights(49) == {"loss_x": 1.0}
    assert method.ramp_up.weights(50) == pytest.approx({"loss_x": 1.0, "loss_u": 0.03, "loss_m": 0.006})
    assert method.ramp_up.weights(59) == pytest.approx({"loss_x": 1.0, "loss_u": 0.3, "loss_m": 0.06})
    confidence = torch.tensor([[[0.8, 0.82, 0.96]]])
    assert method.confident(PseudoLabels(torch.zeros(1, 1, 3, dtype=torch.uint8), confidence)) == 2
    assert remedies.watch.threshold == method.config.threshold
    assert remedies.on_warnings(["empty", "one 1", "lost a"], 60) == []


def test_a_late_warm_up_leaves_half_of_the_steps(remedies: Remedies) -> None:
    assert remedies.on_warnings(["one 1"], 96) == ["the warm-up is prolonged to step 98"]


def test_what_still_holds_after_a_remedy_is_said_again(remedies: Remedies) -> None:
    one_class = Counts([5, 5], [10, 0], [10, 0], [0, 0], [0, 0])
    said = [list(remedies.watch.news(10, one_class)) for _ in range(2)]
    assert said == [["one 0"], []]
    remedies.on_warnings(said[0], 40)
    assert list(remedies.watch.news(10, one_class)) == ["one 0"]


def validate(remedies: Remedies, mious: list[float], baseline: list[float | None], first: int = 25) -> list[list[str]]:
    """Validations every 5 steps."""
    best, best_step, said = -1.0, 0, []
    for index, (miou, of_baseline) in enumerate(zip(mious, baseline, strict=True)):
        step = first + 5 * index
        if miou > best:
            best, best_step = miou, step
        said.append(remedies.on_validation(miou, of_baseline, best_step, step))
    return said


LIGHTER = ["the unlabelled losses weigh 0.3 of what they did"]


def test_behind_its_own_best(remedies: Remedies) -> None:
    said = validate(remedies, [0.5, 0.4, 0.6, 0.5, 0.4, 0.5, 0.4, 0.5, 0.4], [None] * 9)
    assert said == [[], [], [], [], [], LIGHTER, [], [], []]


def test_behind_the_baseline(remedies: Remedies) -> None:
    said = validate(remedies, [0.5, 0.6, 0.7, 0.8], [0.6, 0.5, 0.71, 0.81])
    assert said == [[], [], [], LIGHTER]


def test_ahead_of_the_baseline_a_fall_is_none(remedies: Remedies) -> None:
    assert not any(validate(remedies, [0.8, 0.6, 0.7, 0.6, 0.7], [0.5] * 5))


def test_nothing_is_said_of_the_ramp(remedies: Remedies) -> None:
    """Step 19, counted from 0, is the first with all of the unlabelled losses."""
    assert validate(remedies, [0.6, 0.5, 0.4, 0.3, 0.2], [0.9] * 5, first=5) == [[], [], [], [], LIGHTER]


def test_val_that_falls_for_long_ends_the_run(remedies: Remedies) -> None:
    said = validate(remedies, [0.6, *[0.5] * 7, 0.4], [None] * 9)
    assert said[8] == ["the run ends, as val has not risen since step 25"] and remedies.stopped
    assert sum(map(len, said)) == 2  # and lower weights before


def test_val_that_rises_again_does_not(remedies: Remedies) -> None:
    validate(remedies, [0.6, 0.3, 0.3, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5], [None] * 9)
    assert not remedies.stopped


@pytest.fixture(scope="module")
def options(fast_options: list[str], photos: Path) -> list[str]:
    never = ["--method.threshold", "1", "--method.class_thresholds", "false"]  # is a pseudo-label confident
    lists = {"labeled": "two.txt", "unlabeled": "all.txt", "val": "two.txt"}
    return [
        *(*fast_options, *never),
        *("--data.name", "folder", "--data.root", str(photos), "--data.num_classes", "3"),
        *("--train.act_on_warnings", "true"),
        *(part for name, value in lists.items() for part in (f"--data.{name}", value)),
    ]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_acts_and_is_resumed_exactly(
    options: list[str],
    assert_same_run: Callable[[Path, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped after the first remedy, and while the watch waits for the next."""
    monkeypatch.setattr("maskmatch.training.pseudo_label_watch.EMPTY_STEPS", 15)
    options = [*options, "--train.steps", "48"]
    train_in_python(parse_train([*options, "--output", str(tmp_path / "whole")]))
    acted = {record["step"]: record["acted"] for record in records(tmp_path / "whole") if "acted" in record}
    assert acted == {16: ["the threshold is eased from 1 to 0.85"], 32: ["the warm-up is prolonged to step 36"]}
    said = capsys.readouterr().out
    assert all(f"acted, step {step}: {line}" in said for step, (line,) in acted.items())
    assert records(tmp_path / "whole")[-1].get("loss_u") is not None  # of the steps before it, after the warm-up again
    config = parse_train([*options, "--output", str(tmp_path / "stopped"), "--resume"])
    for count in (18, 12):  # at steps 17 and 28
        with pytest.raises(StopError):
            train_in_python(config, stop=StopAfter(count))
    train_in_python(config)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_ends_early_and_keeps_its_best(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Val is made to fall from the first step on; the ramp ends with step 4."""
    figures = {"now": 1.0}

    def falling(self: Validator, network: nn.Module) -> Metrics:
        figures["now"] -= 0.01
        return Metrics(figures["now"], [0.5] * 3, 0.5, 0.5)

    monkeypatch.setattr(Validator, "__call__", falling)
    run = tmp_path / "run"
    options = [*options, "--train.steps", "12", "--train.validate_every", "1", "--output", str(run)]
    summary = train_in_python(parse_train(options))
    acted = {record["step"]: record["acted"] for record in records(run) if "acted" in record}
    assert acted == {6: LIGHTER, 7: ["the run ends, as val has not risen since step 1"]}
    assert (summary["steps"], summary["best_step"]) == (7, 1)
    assert [(run / "checkpoints" / name).resolve().name for name in ("best", "last")] == ["step_1", "step_7"]
    assert train_in_python(parse_train([*options, "--resume"])) == summary
    assert "is complete: its 7 steps are done" in capsys.readouterr().out
