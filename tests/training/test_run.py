"""What a run leaves behind, and that it can be repeated."""

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import torch
import yaml
from PIL import Image

from maskmatch.config import ModelConfig
from maskmatch.html_report import read_recorded


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(run, name="teacher"):
    return safetensors.torch.load_file(run / "checkpoints" / "last" / f"{name}.safetensors")


def test_run_folder(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    assert set(summary) == {
        *("miou_student", "miou_teacher", "best_miou", "best_step", "select", "skipped_steps"),
        *("images_per_second", "step_ms", "data_wait_ms", "data_wait", "peak_memory_mb"),
        *("steps", "fused", "loader", "skipped_files", "seed"),
    }
    assert 0 <= summary["miou_teacher"] <= summary["best_miou"] <= 1
    assert (summary["steps"], summary["fused"], summary["loader"], summary["seed"]) == (8, True, "torch", 0)
    assert summary["step_ms"] > 0 and summary["images_per_second"] > 0 and summary["peak_memory_mb"] > 0
    for name in ("curves.png", "predictions.png"):
        Image.open(finished_run / name).verify()
    assert list((finished_run / "tensorboard").glob("events*"))
    for link in ("last", "best"):
        assert os.readlink(finished_run / "checkpoints" / link) == "step_8"


def test_environment_and_speed_are_read_by_the_report(finished_run):
    recorded = read_recorded(finished_run)
    assert recorded.environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert set(recorded.environment) == {"versions", "operators", "devices", "platform", "training"}
    assert set(recorded.speed) == {"images_per_second", "data_wait", "peak_memory_mb"}
    for points in recorded.speed.values():
        assert [step for step, _ in points] == [1, 3, 6, 8] and all(value >= 0 for _, value in points)


def test_metrics_hold_every_loss(finished_run):
    records = lines(finished_run / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 3, 6, 8]
    assert {"loss", "loss_x", "loss_u", "loss_m", "coverage", "lr"} <= set(records[-1])
    assert "loss_u" not in records[0]  # warm-up
    assert records[-1]["loss_u"] > 0 and records[-1]["loss_m"] > 0
    assert 0 < records[-1]["coverage"] <= 1
    assert len(records[-1]["iou_teacher"]) == 6


def test_config_reproduces_the_run(finished_run, train, assert_same_run, tmp_path):
    options = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert options["train"]["steps"] == 8 and options["data"]["num_classes"] == 6
    assert train("--config", finished_run / "config.yaml", "--output", tmp_path / "again") == 0
    assert_same_run(tmp_path / "again", finished_run)


def test_another_seed_gives_another_run(finished_run, train, tmp_path):
    assert train("--config", finished_run / "config.yaml", "--train.seed", 1, "--output", tmp_path / "run") == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text() != (finished_run / "metrics.jsonl").read_text()


def test_student_is_the_bare_network_whatever_is_switched_on(finished_run):
    options = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert options["method"]["lcr"] and options["method"]["cutmix"] and len(options["method"]["scales"]) > 1
    model = ModelConfig(**options["model"])
    bare = smp.create_model(model.arch, model.encoder, encoder_weights=None, classes=6).state_dict()
    for name in ("student", "teacher"):
        saved = weights(finished_run, name)
        assert {key: tensor.shape for key, tensor in saved.items()} == {key: t.shape for key, t in bare.items()}


def test_supervised_only_leaves_the_unlabelled_images_out(train, tmp_path):
    run = tmp_path / "run"
    assert train("--train.steps", 3, "--method.supervised_only", "true", "--output", run) == 0
    record = lines(run / "metrics.jsonl")[-1]
    assert "loss_u" not in record and "loss_m" not in record and "coverage" not in record
    student, teacher = weights(run, "student"), weights(run, "teacher")
    assert any(not torch.equal(student[key], teacher[key]) for key in student)  # the EMA is kept


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_single_step(train, tmp_path, precision):
    run = tmp_path / "run"
    assert train("--train.steps", 1, "--train.precision", precision, "--output", run) == 0
    assert {"last", "best", "step_1"} == {path.name for path in (run / "checkpoints").iterdir()}


def test_fused_and_reference_agree_in_every_loss(train, tmp_path):
    live = ["--method.warmup_steps", 0, "--method.ramp_steps", 0, "--method.threshold", 0, "--train.steps", 1]
    first = {}
    for option in ("--fused", "--no-fused"):
        assert train(option, *live, "--output", tmp_path / option) == 0
        first[option] = lines(tmp_path / option / "metrics.jsonl")[0]
        assert json.loads((tmp_path / option / "summary.json").read_text())["fused"] == (option == "--fused")
    for name in ("loss_x", "loss_u", "loss_m", "loss"):
        assert first["--fused"][name] > 0
        assert first["--fused"][name] == pytest.approx(first["--no-fused"][name], rel=1e-5)


def test_fine_tuning_a_finished_run(finished_run, train, capsys, tmp_path):
    assert train("--train.steps", 1, "--init_from", finished_run, "--output", tmp_path / "run") == 0
    assert f"tensors loaded from {finished_run}/checkpoints/best/teacher.safetensors" in capsys.readouterr().out


def test_resuming_a_complete_run_changes_nothing(finished_run, train):
    before = {path: path.read_bytes() for path in finished_run.glob("*.*")}
    assert train("--config", finished_run / "config.yaml", "--output", finished_run, "--resume") == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_new_folder_is_made_where_none_is_given(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train("--train.steps", 1) == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("builtin-") and (folder / "summary.json").exists()
