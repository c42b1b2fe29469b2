"""Training on a device: whatever the options, no step waits for it."""

import time

import pytest
import torch

from maskmatch.commands.command_line import parse_train
from maskmatch.ops import use_backend
from maskmatch.training.build import build

STEPS = 50


@pytest.fixture
def no_waiting():
    """Inside, what waits for the device raises."""

    class Mode:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *exception):
            torch.cuda.set_sync_debug_mode("default")

    yield Mode()
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "reference"])
def test_no_step_waits(fused, precision, compiled, no_waiting, tmp_path, record_property):
    options = [
        *("--train.device", "cuda", "--train.graph", "false"),  # a replay has nothing to wait with
        *("--train.precision", precision, "--train.compile", str(compiled).lower()),
        *("--method.warmup_steps", 5, "--method.ramp_steps", 5, "--train.steps", 1000, "--output", tmp_path / "run"),
    ]
    torch._dynamo.reset()
    run = build(parse_train([str(option) for option in ("--fused" if fused else "--no-fused", *options)]))
    seconds = []
    with run.loader, use_backend("auto" if fused else "reference"):
        for step in range(STEPS):
            batch = next(run.loader)
            run.loader.settle()  # its thread may wait, and must not be taken for the step
            torch.cuda.synchronize()
            started = time.perf_counter()
            if step < 12:  # which allocate, compile and make the optimizer's state
                run.recorder.pending.append(run.train_step([batch], step, compare=True))
            else:
                with no_waiting:
                    run.recorder.pending.append(run.train_step([batch], step, compare=step % 10 == 0))
                    if step % 10 == 0:
                        run.recorder.start(step, {})
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - started)
        records = list(run.recorder.finished(wait=True))
    run.log.close()
    images = 2 * run.config.train.batch_size / sorted(seconds)[len(seconds) // 2]
    record_property("images_per_second", images)
    print(
        f"{'fused' if fused else 'reference'} {precision} {'compiled' if compiled else 'eager'}: {images:.0f} images/s"
    )
    assert all(record.values["loss"] > 0 for record in records) and len(records) == 3
    assert records[-1].values["skipped_steps"] == 0
