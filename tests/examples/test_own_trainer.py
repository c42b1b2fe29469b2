"""docs/own-trainer.md: each diff is one of an example's file; lines of before give the same losses and gradients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

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


class Recorder:
    """The loss of each backward pass, the gradients at each step, and the sizes that were resized to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.losses: list[float] = []
        self.gradients: list[torch.Tensor] = []
        self.resized: list[torch.Size] = []
        backward, interpolate = torch.Tensor.backward, F.interpolate

        def record_loss(loss: torch.Tensor, *arguments: Any, **options: Any) -> None:
            self.losses.append(loss.item())
            backward(loss, *arguments, **options)

        def record_size(*arguments: Any, **options: Any) -> torch.Tensor:
            result = interpolate(*arguments, **options)
            self.resized.append(result.shape)
            return result

        patch.setattr(torch.Tensor, "backward", record_loss)
        patch.setattr(F, "interpolate", record_size)

    def record_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.gradients.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))


def trained(code: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Three steps, looked at from outside: the frameworks call the same torch."""
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        hook = register_optimizer_step_post_hook(recorder.record_gradients)
        try:
            names: dict[str, Any] = {"__name__": name}
            exec(compile(code, name, "exec"), names)
            names["main"](3)
        finally:
            hook.remove()
    return recorder


def test_every_example_has_its_diff() -> None:
    assert sorted(DIFFS) == sorted(path.stem for path in (ROOT / "examples").glob("loss_in_*.py")) == sorted(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_losses_and_gradients_are_those_of_before(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    now, then = before(name)
    for package in NEEDED[name]:
        pytest.importorskip(package)
    ours, theirs = trained(now, name, monkeypatch), trained(then, name, monkeypatch)
    large = (2, 21, 64, 64)
    assert large in theirs.resized and large not in ours.resized
    assert len(ours.losses) == len(theirs.losses) == len(ours.gradients) == len(theirs.gradients) == 3
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
    for got, expected in zip(ours.gradients, theirs.gradients, strict=True):
        largest = expected.abs().max().item()
        assert largest > 1e-4
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * largest)
