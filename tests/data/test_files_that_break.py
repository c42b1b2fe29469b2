"""Files that break, vanish or change while a loader goes: named, or skipped where that is asked for."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path

import pytest
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from tests.data.loaders import LOADERS, equal, open_loader, take


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", LOADERS)
def test_a_file_that_breaks_during_training_is_named(folder: DataConfig, name: str, workers: int) -> None:
    before = threading.active_count()
    loader = open_loader(dataclasses.replace(folder, workers=workers), name)
    next(loader)
    for path in (Path(str(folder.root)) / "images").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"images/\d+\.(jpg|png)") as caught:
        list(itertools.islice(loader, 10))
    assert "\n" not in str(caught.value)
    with pytest.raises(StopIteration):
        next(loader)
    assert threading.active_count() <= before


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("file", ["images/1.jpg", "masks/1.png"])
def test_a_file_that_vanishes_is_named(folder: DataConfig, name: str, file: str) -> None:
    (Path(str(folder.root)) / file).unlink()
    with pytest.raises(UserError, match=file):
        take(folder, name, 10)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("damaged", [None, b"", b"no image", 900])
def test_a_broken_file_can_be_skipped(
    folder: DataConfig, name: str, damaged: bytes | int | None, capsys: pytest.CaptureFixture
) -> None:
    """The next of the list takes its place, in every run alike; each is named once and counted."""
    image, mask = (Path(str(folder.root)) / file for file in ("images/5.jpg", "masks/1.png"))
    mask.write_bytes(b"")
    if damaged is None:
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[:damaged] if isinstance(damaged, int) else damaged)
    skipping = dataclasses.replace(folder, on_error="skip")
    with open_loader(skipping, name) as loader:
        found = [next(loader) for _ in range(6)]
        assert loader.skipped == (image, mask)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("skipped from now on: ") for line in lines)
    assert {Path(line.split(": ")[-1]) for line in lines} == {image, mask}
    resumed = take(skipping, name, 2, start_step=4)
    assert all(equal(a, b) for a, b in zip(found[4:], resumed, strict=True))
    for part, broken, following in (("labeled", "1.jpg masks/1", "2.png masks/2"), ("unlabeled", "5.jpg", "6.png")):
        path = image.parents[1] / f"{part}.txt"
        path.write_text(path.read_text().replace(broken, following))
    assert all(equal(a, b) for a, b in zip(found, take(folder, name, 6), strict=True))


@pytest.mark.parametrize("name", LOADERS)
def test_skipping_ends_where_nothing_is_left(folder: DataConfig, name: str) -> None:
    for path in (Path(str(folder.root)) / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="at least one readable image, got none in a list of 3"):
        take(dataclasses.replace(folder, on_error="skip"), name, 1)


@pytest.mark.parametrize("name", LOADERS)
def test_a_mask_that_changes_during_training_is_named(folder: DataConfig, name: str) -> None:
    path = Path(str(folder.root)) / "masks/1.png"
    with Image.open(path) as mask:
        size = mask.size
    for changed, message in (
        (Image.new("L", size, 9), "known classes"),
        (Image.new("L", (5, 5)), "image's size, got 5x5"),
    ):
        changed.save(path)
        with pytest.raises(UserError, match=rf"{message}.*masks/1\.png"):
            take(folder, name, 3)
