"""Options, configuration files and their precedence."""

import subprocess
import sys
from importlib import import_module

import pytest
import torch
import yaml

from maskmatch.commands.command_line import parse_train, run
from maskmatch.config import Config
from maskmatch.run_files.config_file import config_folder


def test_defaults_are_those_of_the_dataclasses():
    assert parse_train([]) == Config()
    assert parse_train(["--fused"]).fused and not parse_train(["--no-fused"]).fused


@pytest.mark.parametrize("value", ["96,128", "[96,128]"])
def test_sizes_need_no_brackets(value):
    assert parse_train(["--data.crop_size", value]).data.crop_size == (96, 128)
    assert parse_train([f"--data.crop_size={value}"]).data.crop_size == (96, 128)


@pytest.mark.parametrize(
    ("command", "options", "meant"),
    [
        ("train", ["--train.act_on_warning", "true"], "--train.act_on_warnings"),
        ("train", ["--train.precisio=bf16"], "--train.precision"),
        ("train", ["--no-fuse"], "--no-fused"),
        ("evaluate", ["RUN", "--weight", "student"], "--weights"),
        ("predict", ["RUN", "a.jpg", "--output", "b", "--thresh", "0.5"], "--threshold"),
        ("report", ["RUN", "--out", "a.html"], "--output"),
        ("split", ["--label", "20"], "--labeled"),
        ("info", ["--rep"], "--report"),
    ],
)
def test_part_of_an_option_is_none(command, options, meant, capsys):
    """It would be another option's with the next one that begins so."""
    with pytest.raises(SystemExit):
        import_module(f"maskmatch.commands.{command}").main(options)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith(f"did you mean {meant}?\n")


def test_lists_need_no_brackets():
    assert parse_train(["--method.scales", "0.5,1"]).method.scales == [0.5, 1.0]


def test_a_lone_number_needs_them_and_the_error_says_so(capsys):
    with pytest.raises(SystemExit):
        parse_train(["--method.scales", "1"])
    assert "method.scales: expected list, such as [a] or [a,b], got 1" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "resume"), [([], "never"), (["--resume"], "auto"), (["--resume", "x"], "x")])
def test_resume(options, resume):
    assert parse_train(options).resume == resume


@pytest.mark.parametrize("path", sorted(config_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_file_is_valid(path):
    given = yaml.safe_load(path.read_text())
    config = parse_train(["--config", str(path)])
    assert config.data.name == given["data"]["name"] and config.train.lr == given["train"]["lr"]


@pytest.mark.parametrize("form", [["--data.name", "voc"], ["--data.name=voc"]])
def test_a_data_set_brings_its_own_file(form):
    assert parse_train(form) == parse_train(["--config", str(config_folder() / "voc.yaml")])
    assert parse_train([*form, "--train.lr", "7"]).train.lr == 7


def test_the_command_line_wins_over_the_file(tmp_path):
    (tmp_path / "my.yaml").write_text("method:\n  threshold: 0.5\n  scales: [1.0]\n")
    config = parse_train(["--config", str(tmp_path / "my.yaml"), "--method.threshold", "0.6"])
    assert (config.method.threshold, config.method.scales) == (0.6, [1.0])


def test_print_config_can_be_read_again(tmp_path):
    command = [sys.executable, "-m", "maskmatch.train", "--train.steps", "7", "--print_config"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (tmp_path / "printed.yaml").write_text(printed)
    assert parse_train(["--config", str(tmp_path / "printed.yaml")]) == parse_train(["--train.steps", "7"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        MemoryError("Unable to allocate 28.0 GiB for an array"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_memory_left(error, capsys):
    def command(argv):
        raise error

    assert run(command, []) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: out of memory: ") and "--dry_run" in said and len(said.splitlines()) == 1


def test_other_errors_keep_their_traceback():
    def command(argv):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run(command, [])
