"""Configurations that were written with the names of before: they load, or one line says what changed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from maskmatch.commands.command_line import parse_train, train_parser
from maskmatch.common.errors import UserError
from maskmatch.config import AblationConfig, Config, DataConfig, MethodConfig, ModelConfig, TrainConfig, flat, saved
from maskmatch.run_files.config_file import read_config
from maskmatch.training.run_folder import _check_same_run

# As `train` wrote it, and a checkpoint's state.pt had it, before options were moved.
OLDER = yaml.safe_load("""
data: {name: builtin, root: null, split: null, labeled: null, unlabeled: null, val: null, test: null,
  images: images/**/*, masks: masks/**/*, mask_values: null, ignore_values: null, num_classes: 6,
  class_names: [field, meadow, orchard, town, water, path], palette: null, crop_size: [96, 128],
  scale_range: [0.75, 1.5], flip: 0.5, jitter: 0.8, brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1,
  grayscale: 0.0, blur: 0.5, loader: torch, workers: null, cache: ram, on_error: fatal}
model: {arch: deeplabv3plus, encoder: tu-test_resnet, encoder_weights: none, output_stride: null}
method: {supervised_only: false, consistency: true, class_weights: null, ohem: 1.0, cutmix: true, lcr: false,
  reconstruction: true, lambda_r: 0.7, threshold: 0.95, class_thresholds: true, logit_adjustment: 0.0, lambda_u: 1.0,
  lambda_m: 0.2, scales: [1.0, 1.5], average: logit, masking: random, mask_ratio: 0.3, patch_size: 8,
  masked_view: strong, region: hidden, warmup_steps: 80, ramp_steps: 80, ema_momentum: 0.99,
  strong_updates_bn: true, masked_updates_bn: false}
train: {steps: 800, epochs: null, batch_size: 8, accumulate: 1, optimizer: sgd, lr: 0.003, lr_batch_size: 8,
  head_lr_multiplier: 1.0, momentum: 0.9, weight_decay: 0.01, poly_power: 0.9, seed: 3, device: auto,
  precision: fp32, compile: false, branches: sequential, checkpoint_activations: false, max_skipped_steps: 20,
  select: teacher, validate_every: 80, checkpoint_every: 80, keep_checkpoints: 2}
fused: true
init_from: null
""")
TODAY = Config(
    data=DataConfig(
        name="builtin",
        num_classes=6,
        class_names=["field", "meadow", "orchard", "town", "water", "path"],
        crop_size=(96, 128),
        jitter_strengths=(0.4, 0.3, 0.2, 0.1),
        loader="torch",
    ),
    method=MethodConfig(
        lcr=False,
        ablation=AblationConfig(
            reconstruction=True, lambda_r=0.7, average="logit", masked_view="strong", region="hidden"
        ),
        warmup_steps=80,
        ramp_steps=80,
        ema_momentum=0.99,
    ),
    train=TrainConfig(steps=800, optimizer="sgd", seed=3, validate_every=80, checkpoint_every=80),
)
OF_A_CHECKPOINT = {"output": "runs/a", "resume": "never", "dry_run": False, "profile": 0, "loader_from_file": False}
CASES = [("train.momentum", 0.8), ("train.poly_power", 1.0), ("train.max_skipped_steps", 4)]


def older(**train: float) -> dict:
    changed = copy.deepcopy(OLDER)
    changed["train"] |= train
    return changed


def write(path: Path, options: dict) -> Path:
    path.write_text(yaml.safe_dump(options))
    return path


def test_a_runs_own_file(tmp_path: Path) -> None:
    path = write(tmp_path / "config.yaml", OLDER)
    assert read_config(path) == TODAY
    assert parse_train(["--config", str(path)]) == TODAY


@pytest.mark.parametrize(("name", "value"), CASES)
def test_what_is_a_constant_now(name: str, value: float, tmp_path: Path) -> None:
    """Training says so in one line; what has been trained with it is still loaded."""
    path = write(tmp_path / "config.yaml", older(**{name.removeprefix("train."): value}))
    with pytest.raises(UserError, match=rf"^{name} is no option any more, but always [\d.]+, got {value}: {path}$"):
        parse_train(["--config", str(path)])
    assert read_config(path) == TODAY


def test_a_few_of_the_strengths(tmp_path: Path) -> None:
    path = write(tmp_path / "my.yaml", {"data": {"hue": 0.2}, "train": None, "method": {"region": "visible"}})
    config = parse_train(["--config", str(path), "--method.ablation.lambda_r", "2"])
    assert config.data.jitter_strengths == (0.3, 0.3, 0.3, 0.2)
    assert config.method.ablation == AblationConfig(lambda_r=2, region="visible") and config.train == TrainConfig()


def test_numbers_of_a_file_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(
        "train: {lr: 1e-3, weight_decay: 1.0e-4}\nmethod: {lambda_r: 2e-1}\ndata: {root: '007', hue: 1e-1}\n"
    )
    config = parse_train(["--config", str(path)])
    assert (config.train.lr, config.train.weight_decay, config.method.ablation.lambda_r) == (1e-3, 1e-4, 0.2)
    assert (config.data.root, config.data.jitter_strengths[3]) == ("007", 0.1)


@pytest.mark.parametrize("text", ["method: 3", "method: [1]", "train: fast", "method: {ablation: 3}"])
def test_a_section_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(text + "\n")
    for read in (lambda path: parse_train(["--config", str(path)]), read_config):
        with pytest.raises(UserError, match=r"(method|train|method\.ablation): expected options, got (3|\[1\]|fast)"):
            read(tmp_path / "my.yaml")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--method.region=hidden", "unknown option --method.region: it is --method.ablation.region now"),
        ("--data.hue=0.1", "unknown option --data.hue: --data.jitter_strengths has all four now: data.brightness, "),
        ("--train.momentum=0.9", "unknown option --train.momentum: it is no option any more, but always 0.9"),
    ],
)
def test_old_names_on_the_command_line(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_train([typed])
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("state", [OLDER | OF_A_CHECKPOINT, saved(TODAY)], ids=["older", "today's"])
def test_a_checkpoint_is_resumed(state: dict) -> None:
    _check_same_run(state, TODAY, Path("last"))
    for name in flat(TODAY):
        other = copy.deepcopy(TODAY)
        *path, last = name.split(".")
        section = other
        for part in path:
            section = getattr(section, part)
        setattr(section, last, "another")
        if name in FREE:
            _check_same_run(state, other, Path("last"))
        else:
            with pytest.raises(UserError, match=rf"^last was written with {name} = .*, got another: another run"):
                _check_same_run(state, other, Path("last"))


FREE = {
    *("train.steps", "train.epochs", "train.batch_size", "train.accumulate", "train.device", "train.compile"),
    *("train.graph", "train.baseline_every", "train.act_on_warnings"),
    *("train.validate_every", "train.checkpoint_every", "train.keep_checkpoints", "train.checkpoint_activations"),
    *("method.warmup_steps", "method.ramp_steps", "method.ema_momentum", "model.encoder_weights"),
    *("data.workers", "data.loader", "data.cache", "data.on_error", "data.num_classes", "data.class_names"),
    *("data.palette", "data.root", "fused", "init_from"),
}


def test_a_checkpoint_of_another_constant_is_not() -> None:
    _check_same_run(older(max_skipped_steps=4), TODAY, Path("last"))
    for name, value in CASES[:2]:
        with pytest.raises(UserError, match=rf"^last was written with {name} = {value}, got 0.9: another run cannot"):
            _check_same_run(older(**{name.removeprefix("train."): value}), TODAY, Path("last"))


def test_what_a_command_does_is_saved_nowhere() -> None:
    config = Config(output="runs/a", resume="auto", loader_from_file=True, model=ModelConfig(arch="fpn"))
    assert set(saved(config)) == {"data", "model", "method", "train", "fused", "init_from"}
    assert saved(config) == saved(Config(model=ModelConfig(arch="fpn")))
    typed = {action.dest for action in train_parser()._actions}
    assert {"dry_run", "profile"} <= typed and not {"dry_run", "profile"} & set(vars(config))
