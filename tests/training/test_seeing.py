"""What a run tells while it goes: measures by class, timings, the best checkpoint, and why it gives up."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CLASSES = 6


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """12 steps, so that a step is among them whose pseudo-labels are compared with the truth and with the student."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--train.steps", 12, "--train.validate_every", 5, "--train.checkpoint_every", 6]
    assert train(*options, "--train.select", "student", "--train.head_lr_multiplier", 5, "--output", folder) == 0
    return folder


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_pseudo_labels_are_measured_by_class(run):
    (record,) = (record for record in records(run) if record["step"] == 10)
    assert 0 <= record["agreement"] <= 1 and 0 <= record["accuracy"] <= 1
    for name in ("coverage_by_class", "accuracy_by_class"):
        assert len(record[name]) == CLASSES
        assert all(value is None or 0 <= value <= 1 for value in record[name])
    assert record["skipped_steps"] == 0
    assert record["lr_head"] == pytest.approx(5 * record["lr"])
    warm_up = records(run)[0]
    assert "agreement" not in warm_up and "coverage_by_class" not in warm_up


def test_tensorboard_has_the_same_by_name_and_the_timings(run):
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss_x", "loss_u", "loss_m", "lr", "lr_head", "agreement", "accuracy", "miou_teacher"} <= tags
    assert {"performance/images_per_second", "performance/data_wait", "performance/peak_memory_mb"} <= tags
    assert sum(tag.startswith("iou_teacher/") for tag in tags) == CLASSES
    (wait,) = (event.value for event in events.Scalars("performance/data_wait") if event.step == 10)
    assert 0 < wait < 1
    assert not any("performance" in name or "second" in name for record in records(run) for name in record)


def test_the_best_checkpoint_is_the_selected_networks(run):
    validated = [record for record in records(run) if "miou_student" in record]
    assert [record["step"] for record in validated] == [5, 10, 12]
    best = max(validated, key=lambda record: record["miou_student"])
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["select"], summary["best_miou"]) == ("student", best["miou_student"])
    assert summary["best_step"] == best["step"]
    assert (run / "checkpoints" / "best").resolve().name == f"step_{best['step']}"


def test_a_run_that_diverges_says_where(train, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("maskmatch.training.after_step.MAX_SKIPPED_STEPS", 4)
    options = ["--train.steps", 30, "--train.lr", "1e30"]
    assert train(*options, "--output", tmp_path / "run") == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "Traceback" not in error
    for words in ("not finite in", "steps in a row", "in step 6", "loss_x", "images/000", "--train.lr"):
        assert words in error
    assert records(tmp_path / "run")[-1]["skipped_steps"] >= 4
