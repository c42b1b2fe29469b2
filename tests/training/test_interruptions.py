"""A run that is killed or stopped at any moment, and resumed, equals one that was not.

MASKMATCH_TEST_KILLS is the number of random moments (default 2).
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from maskmatch.commands.command_line import EXIT_STOPPED, parse_train
from maskmatch.common.signals import ECHO_SECONDS, StopError, StopSignal
from maskmatch.training import train as train_in_python
from tests.training.stop_after import StopAfter

STEPS = [
    "--train.steps",
    8,
    "--train.checkpoint_every",
    3,
    "--train.validate_every",
    4,
    "--method.class_thresholds",
    "true",
    "--method.logit_adjustment",
    "0.5",
]
KILLS = int(os.environ.get("MASKMATCH_TEST_KILLS", "2"))


@pytest.fixture(scope="module")
def uninterrupted(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train(*STEPS, "--output", folder) == 0
    return folder


def wait_for(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_random_moments(uninterrupted, start, assert_same_run, tmp_path):
    """A run is killed again and again, every second time while it writes a checkpoint; once complete, a new one is."""
    generator = random.Random(0)
    run, codes = tmp_path / "0", []
    for kill in range(KILLS):
        if (run / "summary.json").exists():
            assert_same_run(run, uninterrupted)
            run = tmp_path / str(kill)
        process = start(*STEPS, "--output", run, "--resume", "auto")
        wait_for((run / "metrics.jsonl").exists, process)
        if kill % 2:
            wait_for(lambda folder=run / "checkpoints": list(folder.glob(".step_*.tmp/*")), process)
            time.sleep(generator.uniform(0, 0.01))
        else:
            time.sleep(generator.uniform(0, 1))
        process.kill()
        process.communicate()
        codes.append(process.returncode)
    assert -signal.SIGKILL in codes
    process = start(*STEPS, "--output", run, "--resume", "auto")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert_same_run(run, uninterrupted)


@pytest.mark.slow
def test_a_signal_saves_and_leaves(uninterrupted, start, assert_same_run, tmp_path):
    run = tmp_path / "run"
    command = [*STEPS, "--output", run, "--resume", "auto"]
    for number, records in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
        process = start(*command)
        wait_for(lambda records=records: len(list_lines(run / "metrics.jsonl")) >= records, process)
        process.send_signal(number)
        _, error = process.communicate(timeout=100)
        assert process.returncode == EXIT_STOPPED, error
        assert f"stopped by {number.name} after step" in error and "--resume" in error and "Traceback" not in error
        assert (run / "checkpoints" / "last").exists()
    process = start(*command)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "from step" in out
    assert_same_run(run, uninterrupted)


def list_lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_signal_while_the_command_line_is_imported():
    code = """
import signal, sys
from maskmatch.commands import train

class Finder:
    def find_spec(name, *rest):
        if name == "maskmatch.commands.command_line":
            signal.raise_signal(signal.SIGTERM)

sys.meta_path.insert(0, Finder)
sys.exit(train.main([]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (EXIT_STOPPED, "stopped by SIGTERM")


def test_stopped_before_every_step_and_every_validation(uninterrupted, fast_options, assert_same_run, tmp_path):
    """Each time in the run that was resumed from the stop before."""
    run = tmp_path / "run"
    config = parse_train([*fast_options, *map(str, STEPS), "--output", str(run), "--resume"])
    for _ in range(9):  # before steps 2 to 8, and before the validations of steps 4 and 8
        with pytest.raises(StopError, match="SIGTERM after step"):
            train_in_python(config, stop=StopAfter(2))
    train_in_python(config, stop=StopAfter(2))
    assert_same_run(run, uninterrupted)


def test_the_second_signal_is_not_held_back(monkeypatch):
    clock = iter([0.0, ECHO_SECONDS / 2, ECHO_SECONDS + 0.1])
    monkeypatch.setattr("maskmatch.common.signals.monotonic", lambda: next(clock))
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.received == "SIGINT"
            signal.raise_signal(signal.SIGINT)  # an echo of the first
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, former)


def test_work_that_can_be_done_again_is_left_at_once():
    with StopSignal() as stop:
        with pytest.raises(StopError, match="SIGTERM"), stop.raising():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopError, match="SIGTERM"), stop.raising():
            pytest.fail("the body was entered")
