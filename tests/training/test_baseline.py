"""The supervised-only baseline beside a run is that very training, and at the end the better of both is handed over."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from maskmatch import load
from maskmatch.commands.command_line import parse_train
from maskmatch.common.signals import StopError
from maskmatch.metrics import Metrics, Validator
from maskmatch.training import train as train_in_python
from maskmatch.training.baseline import Baseline
from tests.training.stop_after import StopAfter

Train = Callable[..., int]


@pytest.fixture(scope="module")
def options(photos: Path) -> list[str]:
    """A few steps on six drawn images, two of them labelled."""
    lists = {"labeled": "two.txt", "unlabeled": "all.txt", "val": "all.txt"}
    return [
        *("--data.name", "folder", "--data.root", str(photos), "--data.num_classes", "3", "--train.steps", "8"),
        *("--train.validate_every", "3", "--train.checkpoint_every", "3", "--train.lr", "0.01"),
        *(part for name, value in lists.items() for part in (f"--data.{name}", value)),
    ]


@pytest.fixture(scope="module")
def beside(train: Train, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "beside"
    assert train(*options, "--train.baseline_every", 1, "--output", folder) == 0
    return folder


def weights(folder: Path, name: str, checkpoint: str = "last") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "checkpoints" / checkpoint / f"{name}.safetensors")


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "checkpoints/last/state.pt", weights_only=True)
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def assert_equal(one: Any, other: Any) -> None:
    """Nested dictionaries of tensors and values, bit by bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_it_is_a_supervised_run(train: Train, options: list[str], beside: Path, tmp_path: Path) -> None:
    """At every step: the same weights, teacher and optimizer as without any unlabelled image."""
    assert train(*options, "--method.supervised_only", "true", "--output", tmp_path / "run") == 0
    baseline, alone = state(beside)["baseline"], state(tmp_path / "run")
    for name in ("student", "teacher"):
        assert_equal(baseline[name], weights(tmp_path / "run", name))
    assert_equal(baseline["train_step"]["optimizer"]["state"], alone["optimizer"]["state"])
    measured = {
        record["step"]: record["miou_teacher"] for record in records(tmp_path / "run") if "iou_teacher" in record
    }
    found = {record["step"]: record["miou_baseline"] for record in records(beside) if "miou_baseline" in record}
    assert found == measured and list(found) == [3, 6, 8]  # from the first validation after the two steps of warm-up


def test_the_run_itself_is_as_without(train: Train, options: list[str], beside: Path, tmp_path: Path) -> None:
    assert train(*options, "--output", tmp_path / "run") == 0
    for name in ("student", "teacher"):
        assert_equal(weights(beside, name), weights(tmp_path / "run", name))
    of_baseline = dict.fromkeys(("miou_baseline", "miou_error_baseline"))
    assert [record | of_baseline for record in records(beside)] == [
        record | of_baseline for record in records(tmp_path / "run")
    ]
    assert state(tmp_path / "run")["baseline"] == {} and "best_is" not in summary(tmp_path / "run")
    assert not (tmp_path / "run/checkpoints/baseline").exists()


def test_every_other_step_and_resumed(
    fast_options: list[str], options: list[str], assert_same_run: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """Stopped again and again, it ends with the same numbers."""
    every = [*fast_options, *options, "--train.baseline_every", "2"]
    train_in_python(parse_train([*every, "--output", str(tmp_path / "whole")]))
    config = parse_train([*every, "--output", str(tmp_path / "stopped"), "--resume"])
    stops = 0
    while not (tmp_path / "stopped/summary.json").exists():
        try:
            train_in_python(config, stop=StopAfter(4))
        except StopError:
            stops += 1
            assert stops < 20
    assert stops > 2
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    one, other = (state(tmp_path / name)["baseline"] for name in ("whole", "stopped"))
    assert_equal(one, other)
    steps = {int(each["step"]) for each in one["train_step"]["optimizer"]["state"].values()}
    assert steps == {2 + 3}  # of the warm-up; then steps 2, 4 and 6
    for name in ("student", "teacher"):
        assert_equal(weights(tmp_path / "whole", name, "baseline"), weights(tmp_path / "stopped", name, "baseline"))


@pytest.mark.parametrize("better", ["baseline", "run"])
def test_the_better_one_is_handed_over(
    train: Train,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    better: str,
) -> None:
    """Val is made to say which that is: at the second of three validations the baseline is best."""
    figures = iter([0.1, 0.95 if better == "baseline" else 0.0, 0.05])

    def measure(self: Baseline, validator: Validator) -> Metrics:
        return Metrics(next(figures), [0.0] * 3, 0.0, 0.0)

    monkeypatch.setattr(Baseline, "measure", measure)
    run = tmp_path / "run"
    assert train(*options, "--train.baseline_every", 2, "--train.keep_checkpoints", 1, "--output", run) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "held-out images" in line)
    found = summary(run)
    assert found["best_is"] == better and found["miou_baseline"] == (0.95 if better == "baseline" else 0.1)
    assert found["val_images"] == 6 and found["worst_class"] in load(run).class_names
    assert len(found["label_next"]) == 4 and all(path[-5] in "0123" for path in found["label_next"])  # of two.txt not
    assert found["worst_class"] in line and line.endswith(", ".join(found["label_next"]))
    best = (run / "checkpoints/best").resolve()
    assert load(run).checkpoint == best
    if better == "baseline":
        assert (best.name, found["best_step"], found["best_miou"]) == ("baseline", 6, 0.95)
        assert "the unlabelled images did not help" in line
        assert re.search(r"with 0\.950 \+- 0\.\d{3} on 6 held-out images", line)
        assert_equal(state(run)["baseline"]["best"]["teacher"], weights(run, "teacher", "best"))
        assert (run / f"checkpoints/step_{state(run)['best_step']}").is_dir()  # which a longer run may come back to
    else:
        assert best.name == f"step_{found['best_step']}" and found["best_miou"] == state(run)["best_miou"]
        assert re.search(r"labelled alone would have given a val mIoU of about 0\.100 \+- 0\.\d{3}; this has ", line)
    assert (run / "checkpoints/baseline/sha256").read_text().count("safetensors") == 2


def test_it_begins_with_the_baseline_of_the_run_that_is_begun_with(
    train: Train, options: list[str], beside: Path, tmp_path: Path
) -> None:
    """A step on, it is a supervised run that begins with those weights, while the run begins with the best ones."""
    run, alone = tmp_path / "run", tmp_path / "alone"
    step = ["--train.steps", 1, "--method.warmup_steps", 1]
    assert train(*options, *step, "--train.baseline_every", 1, "--init_from", beside, "--output", run) == 0
    start = ["--init_from", beside / "checkpoints/baseline", "--method.supervised_only", "true"]
    assert train(*options, *step, *start, "--output", alone) == 0
    for name in ("student", "teacher"):
        assert_equal(state(run)["baseline"][name], weights(alone, name))


def test_a_supervised_run_has_none_and_says_as_much(
    train: Train, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How good it is, how sure that is, its worst class, and what to do; nothing of images without masks."""
    only = ["--method.supervised_only", "true", "--train.baseline_every", 1, "--train.steps", 2]
    assert train(*options, *only, "--output", tmp_path / "run") == 0
    assert "best_is" not in summary(tmp_path / "run")
    (record,) = (one for one in records(tmp_path / "run") if "iou_teacher" in one)
    worst = min(range(3), key=lambda label: record["iou_teacher"][label])
    said = capsys.readouterr().out.splitlines()
    miou, error = record["miou_teacher"], record["miou_error_teacher"]
    (line,) = (line for line in said if line.startswith("step 2: val mIoU student "))
    assert line.endswith(f"teacher {miou:.4f} +- {error:.4f}")
    assert said[-1] == (
        f"val mIoU is {miou:.3f} +- {error:.3f} on 6 held-out images; its worst class is {worst}, with "
        f"{record['iou_teacher'][worst]:.3f}; the next best thing: more images with class {worst}, and their masks"
    )
