"""A folder that was looked at before: what has not changed is not read again, what has is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskmatch.planning import make_plan, mask_reading
from tests.planning.test_plan import draw


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the masks and unlabelled images that are read from now on; nothing was seen before."""
    names: list[str] = []
    look, fault = mask_reading._look, mask_reading._fault_of_image
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mask_reading, "_look", lambda pair, **how: names.append(str(pair.mask)) or look(pair, **how))
    monkeypatch.setattr(mask_reading, "_fault_of_image", lambda pair: names.append(str(pair.image)) or fault(pair))
    return names


def test_what_has_changed_is_read_again(tmp_path: Path, read: list[str]) -> None:
    root = draw(tmp_path / "set")
    first = make_plan(root, tmp_path / "lists")
    assert len(read) == 6 + 4
    read.clear()
    assert make_plan(root, tmp_path / "lists").lines() == first.lines() and not read
    cv2.imwrite(str(root / "masks/2.png"), np.eye(64, dtype=np.uint8) * 2)
    changed = make_plan(root, tmp_path / "lists").options
    assert read == [str(root / "masks/2.png")] and changed["data.num_classes"] == 3


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', "\0"])
def test_a_cache_that_is_broken_or_cannot_be_written_is_none(tmp_path: Path, read: list[str], content: str) -> None:
    root = draw(tmp_path / "set")
    first = make_plan(root, tmp_path / "lists").lines()
    (kept,) = (tmp_path / "cache/maskmatch/looks").iterdir()
    kept.write_text(content)
    assert make_plan(root, tmp_path / "lists").lines() == first and len(read) == 20
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.touch()  # a file where the folder should be
    assert make_plan(root, tmp_path / "lists").lines() == first and len(read) == 30
