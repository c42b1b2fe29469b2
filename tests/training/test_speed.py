"""What summary.json says of a run's speed: the steps alone, waited for, without the first ones."""

import time

import pytest
import torch

from maskmatch.training import marks, speed
from maskmatch.training.speed import Speed

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Clock:
    """The host's time, and that of a device which works through what it was given."""

    def __init__(self):
        self.now = self.device_free = 0.0

    def queue(self, seconds):
        """The host gives work to the device."""
        self.device_free = max(self.device_free, self.now) + seconds

    def wait_for(self, device):
        if device.type == "cuda":
            self.now = max(self.now, self.device_free)

    def mark(self, device):
        return Mark(self, max(self.now, self.device_free) if device.type == "cuda" else self.now)


class Mark:
    def __init__(self, clock, at):
        self.clock, self.at = clock, at

    def reached(self):
        return self.clock.now >= self.at

    def seconds_since(self, earlier):
        return self.at - earlier.at


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(speed, "Mark", clock.mark)
    monkeypatch.setattr(speed, "wait_for", clock.wait_for)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 2**20)
    return clock


def take_steps(measured, clock, steps, *, device=0.0, host=0.0, data=0.0):
    """Steps for which the device works so long, the host, and the host waits for data."""
    for _ in range(steps):
        with measured.waiting():
            clock.now += data
        clock.now += host
        clock.queue(device)
        measured.step()


@pytest.mark.parametrize(("steps", "first"), [(100, 20), (40, 20), (39, 20), (30, 16), (5, 3), (2, 2), (1, 1)])
def test_it_is_timed_from_step_20_on_or_in_the_second_half(clock, steps, first):
    measured = Speed(16, CPU, steps)
    measured.start()
    take_steps(measured, clock, first - 1, host=9.0)
    take_steps(measured, clock, steps - first + 1, host=0.1)
    with measured.paused():
        clock.now += 50
    assert measured.summary()["step_ms"] == pytest.approx(100)
    assert measured.summary()["images_per_second"] == pytest.approx(160)


def test_validation_is_left_out_and_the_devices_work_is_not(clock):
    """The host runs ahead of the device: what is still queued when a validation begins belongs to the steps."""
    measured = Speed(16, GPU, 119)
    measured.start()
    take_steps(measured, clock, 19, device=5.0)
    for _ in range(10):
        take_steps(measured, clock, 10, host=0.001, device=0.2)
        with measured.paused():
            clock.now += 30
    assert measured.summary()["step_ms"] == pytest.approx(200, rel=1e-2)
    assert measured.summary()["images_per_second"] == pytest.approx(80, rel=1e-2)


def test_the_device_waits_for_data_only_when_it_has_nothing_else_to_do(clock):
    measured = Speed(16, GPU, 100)
    measured.start()
    take_steps(measured, clock, 100, data=0.1, device=0.4)  # decoding is hidden behind the step before
    with measured.paused():
        pass
    assert measured.summary()["data_wait"] == pytest.approx(0, abs=0.01)
    starved = Speed(16, GPU, 100)
    starved.start()
    take_steps(starved, clock, 100, data=0.4, device=0.1)
    with starved.paused():
        pass
    assert starved.summary()["data_wait"] == pytest.approx(0.75, abs=0.01)
    assert starved.summary()["data_wait_ms"] == pytest.approx(300, rel=0.01)


def test_waiting_counts_also_where_few_steps_wait(clock):
    measured = Speed(16, CPU, 40)
    measured.start()
    take_steps(measured, clock, 19, host=1.0)
    for _ in range(5):  # four batches at once
        take_steps(measured, clock, 1, host=0.1, data=0.08)
        take_steps(measured, clock, 3, host=0.1)
    assert measured.recent(20)["data_wait"] == pytest.approx(0.02 / 0.12)
    assert measured.recent(4)["images_per_second"] == pytest.approx(16 / 0.12)
    with measured.paused():
        pass
    assert measured.summary()["data_wait_ms"] == pytest.approx(20)
    assert measured.summary()["step_ms"] == pytest.approx(120)


def test_memory_is_that_of_the_training(clock, monkeypatch):
    used = 0

    def reset(device):
        nonlocal used
        used = 1

    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", reset)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: used * 2**20)
    measured = Speed(16, GPU, 4)
    measured.start()
    used = 300
    with measured.paused():
        used = 5000
    assert measured.peak_memory_mb() == 300
    used = 400
    assert measured.peak_memory_mb() == 400


def test_without_a_timed_step_nothing_is_said():
    measured = Speed(16, CPU, 0)
    measured.start()
    with measured.paused():
        pass
    found = measured.summary()
    assert found.pop("peak_memory_mb") > 0
    assert found == dict.fromkeys(("images_per_second", "step_ms", "data_wait_ms", "data_wait"))


def test_marks_of_a_cpu():
    first = marks.Mark(CPU)
    time.sleep(0.01)
    second = marks.Mark(CPU)
    assert first.reached() and second.seconds_since(first) >= 0.01
