"""What check_data finds, what it says of it, and its exit code."""

from __future__ import annotations

import dataclasses
import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.commands.check_data import main
from maskmatch.config import DataConfig
from maskmatch.data import load_dataset
from maskmatch.data.checking.survey import Survey, class_shares, ignored_share, sizes, survey_dataset


def report(config: DataConfig) -> Survey:
    return survey_dataset(load_dataset(config, supervised_only=False, incomplete=True), supervised_only=False)


def command(config: DataConfig, output: Path, *options: str) -> int:
    given = dataclasses.asdict(config)
    chosen = ["name", "root", "labeled", "unlabeled", "val", "num_classes"]
    data = [option for name in chosen for option in (f"--data.{name}", str(given[name]))]
    return main([*data, *options, "--output", str(output)])


def test_sound_data(folder: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert command(folder, tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "0 errors, 0 warnings" in out and str(tmp_path / "out/classes.png") in out
    for name in ("classes.png", "contact_sheet.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 100 and len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert not (tmp_path / "out/findings.txt").exists()
    assert command(folder, tmp_path / "out") == 2  # nothing is overwritten
    assert str(tmp_path / "out/classes.png") in capsys.readouterr().err


def test_counts_are_those_of_the_files(folder: DataConfig) -> None:
    found = report(folder).parts
    assert [(part.images, part.masks) for part in found.values()] == [(3, 3), (7, 0), (2, 2), (0, 0)]
    masks = [np.asarray(Image.open(Path(str(folder.root)) / f"masks/{i}.png")) for i in range(3)]
    stored = np.concatenate([mask.ravel() for mask in masks])
    counts = np.array([(stored == label).sum() for label in range(4)])
    np.testing.assert_allclose(class_shares(found["labeled"], 4), counts / counts.sum())
    assert ignored_share(found["labeled"]) == pytest.approx((stored == 255).mean())
    assert found["labeled"].images_with[:4].tolist() == [3, 3, 3, 3]
    assert sizes(found["labeled"]) == "70x40 .. 66x46"


def replace(part: str, lines: str) -> Callable[[Path], object]:
    return lambda root: (root / f"{part}.txt").write_text(lines)


def copy(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(root / old, root / new)


def as_bmp(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: Image.open(root / old).save((root / old).with_name(new))


def one_class(root: Path) -> None:
    for index in range(3):
        with Image.open(root / f"masks/{index}.png") as mask:
            Image.fromarray(np.asarray(mask) % 2).save(root / f"masks/{index}.png")


TWO = "images/0.png masks/0.png\nimages/1.jpg masks/1.png\n"
ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "labelled in val": (
        replace("val", "images/1.jpg masks/1.png\n"),
        "labelled image is in the val list: .*images/1.jpg",
    ),
    "copied into val": (
        copy("images/2.png", "images/10.png"),
        "labelled image is in the val list under another name: .*images/2.png = .*images/10.png",
    ),
    "missing": (lambda root: (root / "images/5.jpg").unlink(), "expected the listed file, found none: .*images/5.jpg"),
    "size": (copy("masks/0.png", "masks/1.png"), "mask size: .*masks/1.png"),
}
WARNINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "listed twice": (replace("labeled", TWO + TWO), "labelled image is in its list again: .*images/0.png"),
    "also unlabelled": (
        replace("unlabeled", "images/3.jpg\nimages/1.jpg\n"),
        "labelled image is in the unlabelled list: .*images/1.jpg",
    ),
    "stored again": (
        as_bmp("images/4.png", "6.png"),
        "unlabelled image is in its list again under another name: .*images/4.png = .*images/6.png",
    ),
    "unlabelled in val": (
        replace("unlabeled", "images/3.jpg\nimages/10.png\n"),
        "unlabelled image is in the val list: .*images/10.png",
    ),
    "absent classes": (one_class, "no labelled image shows class 2"),
}


@pytest.mark.parametrize("name", [*ERRORS, *WARNINGS])
def test_findings(folder: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    damage, message = (ERRORS | WARNINGS)[name]
    damage(Path(str(folder.root)))
    found = report(folder)
    lines, others = (found.errors, found.warnings) if name in ERRORS else (found.warnings, found.errors)
    assert len([line for line in lines if re.fullmatch(message, line)]) == 1, found
    assert all("\n" not in line for line in lines) and not (others if name in WARNINGS else [])
    assert command(folder, tmp_path / "out") == (1 if name in ERRORS else 0)
    assert lines[0] in (tmp_path / "out/findings.txt").read_text()


def test_every_broken_file_is_found(folder: DataConfig, tmp_path: Path) -> None:
    root = Path(str(folder.root))
    broken = ["images/1.jpg", "images/4.png", "images/7.jpg", "masks/2.png", "masks/11.png"]
    for name in broken:
        (root / name).write_bytes((root / name).read_bytes()[:70])
    errors = report(folder).errors
    assert len(errors) == len(broken)
    assert all(any(name in line for line in errors) for name in broken)


def test_binary_masks(folder: DataConfig) -> None:
    root = Path(str(folder.root))
    for index in (0, 1, 2, 10, 11):
        with Image.open(root / f"masks/{index}.png") as mask:
            Image.fromarray(np.where(np.asarray(mask) > 1, 255, 0).astype(np.uint8)).save(root / f"masks/{index}.png")
    assert any("a binary mask? set data.mask_values 0,255" in line for line in report(folder).errors)
    told = dataclasses.replace(folder, mask_values=[0, 255], num_classes=2)
    assert not report(told).errors


def test_a_folder_without_validation_images(folder: DataConfig) -> None:
    found = report(dataclasses.replace(folder, val=None))
    assert not found.errors
    assert found.warnings == ["data.val: expected some images, got none"]


def test_options_of_a_run(folder: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "my.yaml").write_text("model: {arch: unet}\nmethod: {supervised_only: true}\n")
    assert command(folder, tmp_path / "out", "--config", str(tmp_path / "my.yaml")) == 0
    out = capsys.readouterr().out
    assert "unlabelled │ 0" in out and "0 errors, 0 warnings" in out
    with pytest.raises(SystemExit) as stop:
        main(["--data.rot", "x"])
    assert stop.value.code == 2
    assert "did you mean --data.root" in capsys.readouterr().err


def test_a_full_disk(
    folder: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("maskmatch.data.checking.survey_pictures.save_class_chart", full)
    assert command(folder, tmp_path / "out") == 2
    assert capsys.readouterr().err == f"error: output: cannot write to {tmp_path}/out: No space left on device\n"
