"""docs/own-trainer.md: each diff is one of an example's file, and the lines of before train to the same weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "own-trainer.md").read_text(encoding="utf-8")
DIFFS = dict(re.findall(r"examples/(loss_in_\w+)\.py`.*?^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
NEEDED = {
    "loss_in_pytorch": ["torch"],
    "loss_in_transformers": ["transformers", "accelerate"],
    "loss_in_lightning": ["lightning"],
    "loss_in_mmsegmentation": ["mmseg"],
}


def before(name: str) -> tuple[str, str]:
    """The example's file as it is, and with the page's diff taken back."""
    now = then = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    for hunk in DIFFS[name].split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        new, old = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" +", " -"))
        assert then.count(new) == 1, f"docs/own-trainer.md shows what is not in examples/{name}.py:\n{new}"
        then = then.replace(new, old)
    return now, then


def weights(code: str, name: str) -> dict[str, torch.Tensor]:
    """Of the network, after three steps."""
    names: dict[str, Any] = {"__name__": name}
    exec(compile(code, name, "exec"), names)
    trained = names["main"](3)
    return {key: value.double() for key, value in trained.state_dict().items()}


def test_every_example_has_its_diff() -> None:
    assert sorted(DIFFS) == sorted(path.stem for path in (ROOT / "examples").glob("loss_in_*.py")) == sorted(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_the_lines_of_before_train_to_the_same_weights(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    now, then = before(name)
    for package in NEEDED[name]:
        pytest.importorskip(package)
    ours, theirs = weights(now, name), weights(then, name)
    assert ours.keys() == theirs.keys() and len(ours) > 1
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=2e-6, msg=lambda text, key=key: f"{key}: {text}")
