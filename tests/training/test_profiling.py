"""--profile: a table of the phases that adds up, and a trace that names them."""

import gzip
import json
import time

import pytest
import torch

from maskmatch.html_report import read_recorded
from maskmatch.training.phases import PHASES, Phases


def test_phases_are_timed_only_when_asked():
    phases = Phases(torch.device("cpu"))
    with phases("loss"):
        time.sleep(0.01)
    assert phases.milliseconds() == dict.fromkeys(PHASES, 0.0)
    phases.timing = True
    for _ in range(2):
        with phases("loss"):
            time.sleep(0.01)
    times = phases.milliseconds()
    assert times.pop("loss") >= 20 and not any(times.values())
    assert not any(phases.milliseconds().values())  # they start again


def test_profile(train, tmp_path, capsys):
    run = tmp_path / "run"
    assert train("--profile", 3, "--output", run) == 0
    table = capsys.readouterr().out
    assert table == (run / "profile.txt").read_text()
    rows = {line[:16].strip(): float(line[16:26]) for line in table.splitlines() if line.endswith("%")}
    assert list(rows) == [*PHASES, "rest", "step"]
    assert sum(rows.values()) == pytest.approx(2 * rows["step"], abs=0.1)
    assert all(rows[name] > 0 for name in PHASES if name != "data wait")
    network = rows["teacher"] + rows["student forward"] + rows["backward"]
    (share,) = [float(line.split("%")[0]) for line in table.splitlines() if "not network compute" in line]
    assert share == pytest.approx(100 * (1 - network / rows["step"]), abs=0.1)
    trace = json.loads(gzip.decompress((run / "trace.json.gz").read_bytes()))
    assert {event["name"] for event in trace["traceEvents"]} >= set(PHASES)
    assert not (run / "checkpoints").exists()
    del rows["step"]
    assert dict(read_recorded(run).phases) == rows  # as the report reads them
