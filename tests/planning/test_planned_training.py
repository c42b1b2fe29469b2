"""`train --data.root FOLDER` with nothing else: it plans, trains by its plan, and goes on by it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from maskmatch.commands.command_line import parse_command, parse_train
from maskmatch.commands.planned import is_planned, planned
from maskmatch.commands.train import main
from maskmatch.common.signals import StopError
from maskmatch.planning import plan
from maskmatch.training import train as train_in_python
from tests.planning.test_plan import draw
from tests.training.stop_after import StopAfter

SMALL = [
    *("--train.steps", "6", "--data.crop_size", "32", "--method.patch_size", "8", "--train.batch_size", "2"),
    *("--model.encoder", "tu-test_resnet", "--model.encoder_weights", "none", "--data.loader", "torch"),
    *("--train.checkpoint_every", "2", "--method.warmup_steps", "1", "--method.ramp_steps", "1"),
]

BOTH = ("student", "teacher")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _memory_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not looked at, which takes seconds."""
    monkeypatch.setattr(plan, "of_memory", lambda config, num_classes, free: [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return draw(tmp_path / "photos")


def test_without_a_name_a_root_is_planned() -> None:
    assert is_planned(parse_train(["--data.root", "x"]))
    for others in ([], ["--data.name", "builtin", "--data.root", "x"], ["--data.name", "folder", "--data.root", "x"]):
        assert not is_planned(parse_train(others))
    layouts = [parse_train(options).data.layout for options in ([], ["--data.root", "x"], ["--data.name", "builtin"])]
    assert layouts == ["builtin", "folder", "builtin"]


def test_it_trains_by_its_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data.root", str(folder), *SMALL]) == 0
    (run,) = Path("runs").iterdir()
    said = capsys.readouterr().out
    assert "train.steps 6: (yours)" in said and "held-out image" in said
    assert {path.name for path in (run / "plan-lists").iterdir()} == {"labeled.txt", "unlabeled.txt", "val.txt"}
    options, used = (yaml.safe_load((run / name).read_text()) for name in ("plan.yaml", "config.yaml"))
    for section, values in options.items():
        assert {name: used[section][name] for name in values} == values
    assert used["train"]["baseline_every"] == 2 and used["train"]["act_on_warnings"] is True
    assert json.loads((run / "summary.json").read_text())["best_is"] in ("run", "baseline")


def numbers(run: str) -> list[bytes]:
    """All that a run has learned and written down."""
    files = [f"checkpoints/{which}/{network}.safetensors" for which in ("last", "best", "baseline") for network in BOTH]
    return [(Path(run) / name).read_bytes() for name in ("metrics.jsonl", *files)]


def test_it_is_resumed_exactly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the plan of before, although the folder would be planned otherwise now."""
    whole, stopped = ["--output", "whole"], ["--output", "stopped"]
    argv = ["--data.root", str(folder), *SMALL]
    assert main([*argv, *whole]) == 0
    config = planned(*parse_command([*argv, *stopped]), [*argv, *stopped])
    with pytest.raises(StopError):
        train_in_python(config, stop=StopAfter(4))
    before = Path("stopped/plan.yaml").read_bytes()
    monkeypatch.setattr(plan, "make_plan", None)  # nothing is planned
    assert main([*argv, *stopped, "--resume"]) == 0
    assert Path("stopped/plan.yaml").read_bytes() == before
    assert numbers("whole") == numbers("stopped")


def test_masks_added_later_begin_with_the_best_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run of before is only read; what it learned from is not held out, and labelled alone goes on from its own."""
    command = ["--data.root", str(folder), *SMALL, "--train.lr", "0.01"]
    assert main([*command, "--output", "runs/first"]) == 0
    before = {path: path.read_bytes() for path in Path("runs/first").rglob("*") if path.is_file()}
    assert "init_from" not in capsys.readouterr().out
    same = plan.make_plan(folder, Path("lists")).options  # nothing was added
    assert "init_from" not in same and same["train.lr"] != 0.01
    for i in range(6, 9):
        cv2.imwrite(str(folder / f"masks/{i}.png"), np.eye(64, dtype=np.uint8))
    assert main([*command, "--output", "runs/second"]) == 0
    said = capsys.readouterr().out
    assert "init_from runs/first: 3 masks were added since: its best weights; none of the masks" in said
    assert "labelled alone goes on from its own" in said and "loaded from runs/first/checkpoints/best/teacher" in said
    assert before == {path: path.read_bytes() for path in Path("runs/first").rglob("*") if path.is_file()}
    learned, held_out = Path("runs/first/plan-lists/labeled.txt"), Path("runs/second/plan-lists/val.txt")
    assert not set(learned.read_text().splitlines()) & set(held_out.read_text().splitlines())
    third = plan.make_plan(folder, Path("lists"))  # as the second, since the second knew all of these masks
    assert (
        third.options["init_from"] == "runs/first"
        and third.lists["val"] == plan.make_plan(folder, Path("lists")).lists["val"]
    )
    for change, why in (
        ({"model.encoder": "resnet18"}, "model.encoder was tu-test_resnet, and is resnet18 now"),
        ({"data.num_classes": 3}, "there were 2 classes, and there are 3 now"),
        ({"data.mask_values": [1, 0]}, "its classes are stored as their numbers, and now as [1, 0]"),
    ):
        other = plan.make_plan(folder, Path("lists"), change)
        assert "init_from" not in other.options and any(why in note for note in other.notes), other.notes
    assert plan.make_plan(folder, Path("lists"), {"init_from": "mine.pt"}).options["init_from"] == "mine.pt"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.root", "photos", "--budget", "soon"], "budget: expected a time such as 90s, 20m or 2h, got soon"),
        (["--data.root", "photos", "--budget", "9m", "--train.steps", "3"], "budget 9m says how many steps"),
        (["--data.root", "photos", "--dry_run"], "--dry_run and --profile take a folder's plan"),
        (["--data.root", "photos", "--data.split", "1_8"], "data.split: expected a folder with labeled.txt"),
        (["--data.root", "nowhere"], "data.root: expected a folder, found none: nowhere"),
        (["--budget", "20m"], "budget: expected none but for a folder that is planned"),
        (["--data.name", "folder", "--data.root", "photos", "--budget", "20m"], "budget: expected none but"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_refused(options: list[str], said: str, refusal: Callable[..., str]) -> None:
    assert said in refusal(main, *options)
    assert not Path("runs").exists()


@pytest.mark.usefixtures("folder")
def test_nothing_is_overwritten(refusal: Callable[..., str]) -> None:
    argv = ["--data.root", "photos", "--output", "run", *SMALL]
    Path("run").mkdir()
    Path("run/plan.yaml").write_text("train: {steps: 5}\n")
    assert "run already holds a plan" in refusal(main, *argv)
    assert Path("run/plan.yaml").read_text() == "train: {steps: 5}\n"
    Path("run/plan.yaml").rename("run/config.yaml")
    assert "run already holds a run" in refusal(main, *argv)
    assert "holds a run without a plan" in refusal(main, *argv, "--resume")


@pytest.mark.usefixtures("folder")
def test_several_processes_take_a_plan(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes take a folder's plan" in refusal(main, "--data.root", "photos")


@pytest.mark.slow
def test_a_budget_from_the_command_line(folder: Path) -> None:
    command = [sys.executable, "-m", "maskmatch.train", "--data.root", str(folder), "--budget", "20s"]
    output = ["--output", str(Path("run").absolute())]
    done = subprocess.run([*command, *output], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = yaml.safe_load(Path("run/plan.yaml").read_text())["train"]["steps"]
    assert re.search(rf"train\.steps {steps}: for a budget of 20s: a step takes \d+ ms", done.stdout)
    assert torch.load("run/checkpoints/last/state.pt", weights_only=True)["step"] <= steps
