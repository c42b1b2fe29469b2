"""Names of files are any bytes: not UTF-8, with blanks of every kind, with line ends of other alphabets."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmatch.commands.command_line import run
from maskmatch.commands.evaluate import main as evaluate
from maskmatch.commands.predict import _arguments
from maskmatch.commands.predict import main as predict
from maskmatch.commands.report import main as report
from maskmatch.commands.split import main as split
from maskmatch.commands.train import main as train
from maskmatch.common.errors import UserError
from maskmatch.config import Config, DataConfig
from maskmatch.data import Pair, fingerprint, load_dataset
from maskmatch.data.listing.lists import format_list, read_list
from maskmatch.training.run_folder import run_folder

NAMES = [
    "stra\udcdfe",
    "\udcff \udcfe",
    "Screenshot 1.00.00\u202fPM",
    "\u3000a",
    "a\x85b\u2028c",
    "é",
    "e\u0301",
    "\ufeffa",
]
TEXT = st.text(st.characters(exclude_characters="/\0\t\r\n", exclude_categories=["Cs"]), min_size=1, max_size=9)
BYTES = st.binary(min_size=1, max_size=9).map(os.fsdecode).filter(lambda name: not set("/\0\t\r\n") & set(name))


@settings(max_examples=60)
@given(st.lists((TEXT | BYTES).filter(lambda name: name == name.strip() and name not in (".", "..")), max_size=6))
def test_a_list_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.getbasetemp()
    pairs = tuple(Pair(root / f"i{name}.png", root / f"m{name}.png") for name in names)
    (root / "list.txt").write_text(format_list(pairs, root), encoding="utf-8", errors="surrogateescape")
    assert read_list(root / "list.txt", root, labeled=True, find=lambda name: None) == pairs


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\rb", " a", "a.png "])
def test_a_name_that_cannot_stand_on_a_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"without tabs and line ends, got {name!r}")):
        format_list([Pair(tmp_path / name, None)], tmp_path)


@pytest.fixture
def named(tmp_path: Path, save: tuple) -> DataConfig:
    """A folder whose name and whose files' names are no UTF-8, or have unusual characters."""
    root = tmp_path / os.fsdecode(b"da\xffta")
    for index, name in enumerate(NAMES):
        save[0](tmp_path / "image.png", 64, 80, index)
        save[1](tmp_path / "mask.png", np.random.default_rng(index).integers(0, 2, (64, 80)))
        for kind in ("image", "mask"):
            (root / f"{kind}s").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{kind}.png").rename(root / f"{kind}s/{name}.png")
    return DataConfig(name="folder", root=str(root), num_classes=2)


def options(config: DataConfig) -> list[str]:
    return ["--data.name", "folder", "--data.root", str(config.root), "--data.num_classes", "2"]


def test_a_split_of_such_names(named: DataConfig) -> None:
    assert split([*options(named), "--labeled", "5", "--val", "2"]) == 0
    named.split = "5"
    dataset = load_dataset(named, supervised_only=False)
    parts = [dataset.labeled, dataset.unlabeled, dataset.val]
    assert sorted(pair.image.stem for part in parts for pair in part) == sorted(NAMES)
    assert all(pair.mask and pair.mask.stem == pair.image.stem for pair in dataset.labeled)
    assert len({fingerprint(dataset, seed=seed, global_batch=1)["labeled"]["sha256"] for seed in (1, 2)}) == 1


@pytest.mark.slow
def test_every_command_with_such_names(named: DataConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One of them in a process of its own, whose output has an encoding of its own."""
    root = Path(str(named.root))
    first = root / f"images/{NAMES[0]}.png"
    (root / os.fsdecode(b"images/copy\xfe.png")).write_bytes(first.read_bytes())
    line = [sys.executable, "-m", "maskmatch.check_data", *options(named), "--output", str(tmp_path / "check")]
    done = subprocess.run(line, capture_output=True, timeout=300)
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert done.returncode == 0 and rb"stra\xdfe.png = " in done.stdout
    assert b"stra\xdfe.png = " in (tmp_path / "check/findings.txt").read_bytes()

    def call(main: Callable[[list[str]], int], *arguments: object) -> None:
        assert main(list(map(str, arguments))) == 0
        assert "Traceback" not in capfd.readouterr().err

    call(split, *options(named), "--labeled", "5", "--val", "1")
    small = ["--train.batch_size", "2", "--data.crop_size", "32"]
    fast = [*options(named), *small, "--data.split", "5", "--train.steps", "1", "--output", tmp_path / "run"]
    call(train, *fast)
    call(train, *fast, "--resume", "--train.steps", "2")
    call(evaluate, tmp_path / "run")
    call(report, tmp_path / "run")
    call(predict, tmp_path / "run", root / "images", "--pseudo_labels", "--output", tmp_path / "out")
    assert (tmp_path / f"out/labels/{NAMES[0]}.png").is_file()
    pseudo = DataConfig(name="folder", root=str(root), labeled=str(tmp_path / "out/pseudo_labels.txt"), num_classes=2)
    assert len(load_dataset(pseudo, supervised_only=True, incomplete=True).labeled) == len(NAMES) + 1


def test_a_list_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"stra\xdfe.png\n\na.png\n"), encoding="utf-8"))
    assert list(_arguments(["x", "-"])) == ["x", "stra\udcdfe.png", "a.png"]


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "é\u20ac".encode()), ("ascii", rb"\xe9\u20ac")])
def test_every_name_is_printed(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding=encoding))
    assert run(lambda _: print("stra\udcdfe é\u20ac"), []) == 0
    assert printed.getvalue() == rb"stra\xdfe " + shown + b"\n"


def test_the_folder_of_a_run_is_named_in_utf_8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="output: expected a folder whose name is UTF-8"):
        run_folder(Config(output=str(tmp_path / "run\udcff")))
