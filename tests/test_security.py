"""What a stranger made is read and never run: pickles, YAML, PostScript; docs: SECURITY.md."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import EpsImagePlugin

from maskmatch import load
from maskmatch.commands.check_data import main as check_data
from maskmatch.commands.evaluate import main as evaluate
from maskmatch.commands.predict import main as predict
from maskmatch.commands.train import main as train
from maskmatch.common.errors import UserError


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self):
        return os.mkdir, (str(self.sprung),)


def zipped(content: object, path: Path) -> None:
    torch.save(content, path)


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.fixture
def sprung(tmp_path):
    return tmp_path / "sprung"


@pytest.fixture(params=[zipped, legacy, bare])
def trap(request, sprung) -> Callable[[Path], Path]:
    """A function that writes a trap, which is one indeed."""

    def write(path: Path) -> Path:
        request.param({"model": Trap(sprung), "step": 4}, path)
        return path

    written = write(sprung.with_suffix(".trap"))
    pickle.loads(written.read_bytes()) if request.param is bare else torch.load(written, weights_only=False)
    sprung.rmdir()
    return write


@pytest.fixture
def own_run(run, tmp_path):
    """A run to change."""
    return shutil.copytree(run, tmp_path / "run", symlinks=True)


def resume(run: Path, *options: object) -> list[object]:
    return ["--config", run / "config.yaml", "--output", run, "--data.loader", "torch", *options]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights(run, photos, trap, sprung, tmp_path, refusal, suffix):
    file = trap(tmp_path / f"stranger{suffix}")
    data = ["--data.name", "folder", "--data.root", photos, "--data.num_classes", 3, "--data.loader", "torch"]
    data += [f"--data.{part}={photos}/all.txt" for part in ("labeled", "unlabeled", "val")]
    with pytest.raises(UserError) as raised:
        load(run, checkpoint=file)
    said = [f"error: {raised.value}"]
    said.append(refusal(evaluate, run, "--checkpoint", file, "--output", tmp_path / "out"))
    said.append(refusal(train, *data, "--init_from", file, "--output", tmp_path / "a"))
    said.append(refusal(train, *data, "--model.encoder_weights", file, "--output", tmp_path / "b"))
    for line, option in zip(said, ("checkpoint", "checkpoint", "init_from", "model.encoder_weights"), strict=True):
        assert line.startswith(f"error: {option}: {file} cannot be read: ")
        assert "weights_only" not in line  # no word of how to run it all the same
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["teacher.safetensors", "state.pt"])
def test_a_checkpoint(own_run, trap, sprung, tmp_path, refusal, name):
    """Whose sums are right: they tell of damage, not of who wrote it."""
    for step in ("step_2", "step_4"):
        folder = own_run / "checkpoints" / step
        content = trap(folder / name).read_bytes()
        sums = [line.split("  ") for line in (folder / "sha256").read_text().splitlines()]
        sums = [[hashlib.sha256(content).hexdigest() if file == name else known, file] for known, file in sums]
        (folder / "sha256").write_text("".join(f"{known}  {file}\n" for known, file in sums))
    last = own_run / "checkpoints/last"
    for options, place in (([], last.parent), (["--resume", last], last.resolve())):
        assert str(place) in refusal(train, *resume(own_run, "--resume", *options[1:]))
    if name == "teacher.safetensors":
        assert "cannot load the checkpoint" in refusal(evaluate, own_run)
        assert "cannot be read" in refusal(train, *resume(own_run, "--init_from", last)[2:], "--output", tmp_path / "a")
    assert not sprung.exists()


def test_one_line_in_a_process_of_its_own(run, tmp_path, sprung):
    """Where torch's warnings are printed too."""
    (tmp_path / "stranger.pth").write_bytes(pickle.dumps({"model": Trap(sprung)}, protocol=5))
    command = [sys.executable, "-m", "maskmatch.evaluate", run, "--checkpoint", tmp_path / "stranger.pth"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "stranger.pth cannot be read" in done.stderr
    assert not sprung.exists()


def test_what_is_refused_is_named(tmp_path, sprung, run, refusal):
    torch.save({"model": Trap(sprung)}, tmp_path / "a.pth")
    said = refusal(evaluate, run, "--checkpoint", tmp_path / "a.pth")
    assert said.endswith("cannot be read: expected tensors, numbers and texts alone, got posix.mkdir")


def test_sums_name_no_other_files(own_run):
    """Of the three that a checkpoint has; what else they name is not even looked at."""
    for path in (own_run / "checkpoints").glob("step_*/sha256"):
        path.write_text(path.read_text() + f"{'0' * 64}  ../../..\n")
    from maskmatch.models import build_student
    from maskmatch.run_files import checkpoint

    networks = [build_student(load(own_run).config.model, 3).network for _ in range(2)]
    assert checkpoint.load(own_run / "checkpoints/last", *networks).step == 4


@pytest.mark.parametrize("name", ["teacher.safetensors", "sha256"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(own_run, name, refusal):
    path = own_run / "checkpoints/best" / name
    path.unlink()
    os.mkfifo(path)

    def waited(*_):
        raise TimeoutError("waited")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(60)
    try:
        assert f"{name} is no regular file" in refusal(evaluate, own_run)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "text",
    [
        "data: {class_path: stranger.Thing, init_args: {}}",
        "data.class_path: stranger.Thing",
        "method: {ablation: {class_path: stranger.Thing}}",
        "method.ablation: {class_path: stranger.Thing}",
        "class_path: stranger.Thing",
        "model: {encoder: {class_path: stranger.Thing}}",
        "data: !!python/object/apply:os.mkdir [SPRUNG]",
        "data: {name: !!python/name:stranger.Thing }",
        "data: !!python/module:stranger ",
    ],
)
def test_a_configuration_imports_nothing(own_run, text, sprung, tmp_path, monkeypatch, refusal):
    (tmp_path / "stranger.py").write_text(f"import os\nos.mkdir({str(sprung)!r})\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    (own_run / "config.yaml").write_text(text.replace("SPRUNG", str(sprung)) + "\n")
    assert str(own_run / "config.yaml") in refusal(evaluate, own_run)
    refusal(train, "--config", own_run / "config.yaml", "--output", tmp_path / "out")
    assert not sprung.exists() and "stranger" not in sys.modules


def test_postscript_is_not_drawn(photos, tmp_path, sprung, monkeypatch, capsys):
    """Pillow would hand it to Ghostscript, whatever the file is called."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\nmkdir {sprung}\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    root = shutil.copytree(photos, tmp_path / "photos")
    for name in ("images/0.png", "masks/1.png"):
        (root / name).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 40\n%%EndComments\nshowpage\n%%EOF\n")
    options = ["--data.name", "folder", "--data.root", root, "--data.num_classes", 3, "--output", tmp_path / "out"]
    assert check_data(list(map(str, options))) == 1
    said = capsys.readouterr()
    for name in ("images/0.png", "masks/1.png"):
        assert f"got EPS: {root / name}" in said.out
    assert not sprung.exists()


def test_settings_that_are_no_settings(run, photos, tmp_path, refusal):
    (tmp_path / "predict.json").write_text("[1]")
    assert str(tmp_path / "predict.json") in refusal(predict, run, photos / "images", "--output", tmp_path)
