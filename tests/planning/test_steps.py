"""How many steps fit into a budget. What a machine takes for them is given here, not timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskmatch.common.errors import UserError
from maskmatch.config import Config
from maskmatch.data import load_dataset
from maskmatch.planning import steps
from maskmatch.planning.machine import Machine
from maskmatch.planning.timing import Times

CPU = Machine(torch.device("cpu"), half=False, free=2**33, cores=2)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("1.5h", 5400)])
def test_budgets(text: str, seconds: float) -> None:
    assert steps.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "0s", "-1h", "20 min", "1h30m", "nan s", "٣m"])
def test_no_budgets(text: str) -> None:
    with pytest.raises(UserError, match=r"budget: expected a time such as 90s, 20m or 2h, got"):
        steps.seconds_of(text)


@pytest.mark.parametrize(
    ("exact", "shown"), [(1, 1), (9.9, 9), (10, 10), (99.99, 99), (100, 100), (1099, 1000), (98765, 98000)]
)
def test_two_digits(exact: float, shown: int) -> None:
    assert steps.rounded(exact) == shown


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Times]:
    """What the next calls of `measure` return; nothing was timed before."""
    times: list[Times] = []
    monkeypatch.setattr(steps, "user_cache", lambda: tmp_path)
    monkeypatch.setattr(steps, "measure", lambda config: times.pop(0))
    monkeypatch.setattr(steps.time, "monotonic", lambda: 0.0)
    return times


def test_all_that_a_run_does_fits(measured: list[Times]) -> None:
    """Steps, validations of three networks, checkpoints, and the end: added up again they stay within the budget."""
    config, data = Config(), load_dataset(Config().data, supervised_only=False)
    config.train.baseline_every = 2
    for seconds in (600, 1200, 3600):
        times = Times(build=3, step=1.5, image=0.02, save=0.4)
        measured.append(times)
        count = steps.of_budget(config, data, f"{seconds}s", CPU, started=-20.0).value
        images = 10 * 3 * len(data.val) + 2 * len(data.val) + 200 + len(data.labeled) + 6
        took = 20 + times.build + count * times.step + images * times.image + 12 * times.save
        assert 0.75 * seconds < took <= 0.9 * seconds


def test_it_is_timed_once(measured: list[Times]) -> None:
    config, data = Config(), load_dataset(Config().data, supervised_only=False)
    measured += [Times(1, 1, 0, 0), Times(1, 2, 0, 0), Times(1, 3, 0, 0)]
    first = steps.of_budget(config, data, "20m", CPU, 0.0)
    assert steps.of_budget(config, data, "20m", CPU, 0.0).value == first.value
    assert len(measured) == 2
    config.data.crop_size = 32
    assert steps.of_budget(config, data, "20m", CPU, 0.0).value < first.value
    assert steps.of_budget(config, data, "40m", CPU, 0.0).value > 0 and not measured


def test_a_cache_that_is_broken_or_cannot_be_written_is_none(measured: list[Times], tmp_path: Path) -> None:
    config, data = Config(), load_dataset(Config().data, supervised_only=False)
    measured += [Times(1, 1, 0, 0), Times(1, 2, 0, 0), Times(1, 2, 0, 0)]
    first = steps.of_budget(config, data, "20m", CPU, 0.0)
    (kept,) = (tmp_path / "steps").iterdir()
    kept.write_text('{"steps": 5')
    assert steps.of_budget(config, data, "20m", CPU, 0.0).value < first.value
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.touch()  # a file where the folder should be
    assert steps.of_budget(config, data, "20m", CPU, 0.0).value < first.value and not measured


def test_neither_too_few_nor_too_many(measured: list[Times]) -> None:
    data = load_dataset(Config().data, supervised_only=False)
    measured += [Times(1, 10, 0, 0), Times(1, 0.01, 0, 0)]
    short, long = (steps.of_budget(Config(), data, budget, CPU, 0.0) for budget in ("20s", "9h"))
    assert short.value == steps.FEWEST and "takes longer" in short.reason
    assert long.value == 2500 and "ends sooner" in long.reason  # 100 passes of 408 images, 16 a step
