"""What summary.json says of a run's speed."""

import pytest
import torch

from maskmatch.training.speed import Speed


def test_waiting_counts_also_where_few_steps_wait():
    speed = Speed(images_a_step=16, device=torch.device("cpu"))
    assert speed.summary()["step_ms"] is None and speed.summary()["data_wait_ms"] is None
    speed.waits = [0.08, 0.0, 0.0, 0.0] * 5  # four batches at once
    speed.steps = [wait + 0.1 for wait in speed.waits]
    speed.steps[0] += 60  # compiles
    summary = speed.summary()
    assert summary["data_wait_ms"] == pytest.approx(20)
    assert summary["step_ms"] == pytest.approx(120)
