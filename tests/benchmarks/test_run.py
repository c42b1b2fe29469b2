"""benchmarks/run.py: what is timed, what is refused, and what a record says."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.speed import (
    command,
    components,
    measure_gpu,
    operators,
    ops,
    ops_baseline,
    ops_cases,
    step,
    step_configs,
)
from benchmarks.speed.selection import Selection
from maskmatch.ops import info, patch_mask, reference

EVERYWHERE = {"machine", "threads", "torch", "python", "commit", "date", "device", "ms_p20", "ms_p50", "ms_p80"}


def test_baselines_compute_what_the_reference_defines():
    torch.manual_seed(0)
    scales = [torch.randn(2, 5, side, side) for side in (4, 6, 9)]
    label, confidence = ops_baseline.pseudo_label(scales, (33, 40))
    weights, flipped = [1 / 3] * 3, [False] * 3
    exact = reference.multiscale_pseudo_label(
        [s.double() for s in scales], 33, 40, flipped, weights, "probability", False
    )
    assert torch.equal(label, exact[0].long())
    torch.testing.assert_close(confidence, exact[1])

    target = torch.randint(0, 5, (2, 33, 33))
    target[0, :5] = 255
    sure = torch.rand(2, 33, 33)
    options = (sure, 0.5, None, None, 255, 0.0, False)
    loss = reference.upsample_cross_entropy(scales[0].double(), target, *options, "all", None)
    got = ops_baseline.mean_loss(scales[0], target, sure, 0.5)
    torch.testing.assert_close(got.double(), loss, rtol=1e-6, atol=0)

    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    seeds = torch.arange(2)
    output, grid = patch_mask(images, 8, mask_ratio=0.5, seeds=seeds, mean=mean.tolist(), std=std.tolist())
    view = (1, 3, 1, 1)
    got = ops_baseline.masked(images, grid, 8, 255 * mean.view(view), 1 / (255 * std.view(view)))
    torch.testing.assert_close(got, output, rtol=1e-5, atol=1e-6)
    assert ops_baseline.random_grid(2, 3, 4, 6, torch.device("cpu")).sum(dim=(1, 2)).tolist() == [6, 6]


def test_operators_are_counted_by_phase():
    plain, folded = operators.run(Selection(shapes=("builtin",)))
    phases = operators.COLUMNS[operators.COLUMNS.index("teacher") :]
    for record in (plain, folded):
        assert record["operators"] == sum(record[phase] for phase in phases) > 500
        assert set(record) > {"machine", "commit", "date", "bare_passes"}
    assert folded["teacher"] < plain["teacher"]
    alike = [phase for phase in phases if phase != "teacher"]
    assert [folded[phase] for phase in alike] == [plain[phase] for phase in alike]


def case(fused, **options):
    return ops_cases.Case(
        "square", "4", "", lambda: torch.full((4,), 2.0), fused, lambda got: float((got - 2).abs().max()),
        exps=1, bytes=16, **options,
    )  # fmt: skip


def records(monkeypatch, cases, **selected):
    monkeypatch.setattr(ops, "all_cases", lambda device, shapes: iter(cases))
    monkeypatch.setattr(ops, "_exps_per_ms", lambda selection: None)
    selection = Selection(**selected)
    return list(ops.run(selection)), selection


def test_a_wrong_provider_is_reported_and_not_timed(monkeypatch):
    found, _ = records(monkeypatch, [case(lambda: torch.ones(4))], providers=("eager", "cpp"))
    wrong = [record for record in found if record["provider"] == "cpp"]
    assert wrong and all(r["problem"] == "wrong, so not timed" and r["error"] == 1 for r in wrong)
    assert not any("ms_p50" in record for record in wrong)
    (eager,) = (record for record in found if record["provider"] == "eager")
    assert eager["over_eager"] == 1 and eager["error"] == 0 and set(eager) >= EVERYWHERE


def test_a_provider_that_fails_does_not_end_the_others(monkeypatch):
    def fail():
        raise RuntimeError("no compiler\nat all")

    found, selection = records(monkeypatch, [case(fail)], providers=("eager", "cpp", "triton"))
    assert {r.get("problem") for r in found if r["provider"] == "cpp"} == {"fails, so not timed: no compiler"}
    assert sum(record["provider"] == "eager" for record in found) == 1
    assert selection.skipped == ["ops, triton: does not run on cpu"]


def test_on_a_gpu_the_kernels_are_compared(monkeypatch):
    """Stands in for the device: what is measured there is made up."""
    base = {"ms_p20": 1.0, "ms_p50": 1.0, "ms_p80": 1.0, "host_us": 900.0, "launches": 3}
    made_up = iter([base | {"graph_us": 100.0}, base | {"graph_us": 25.0}])
    monkeypatch.setattr(ops, "gpu_cases", lambda shapes: iter([case(lambda: torch.full((4,), 2.0))]))
    monkeypatch.setattr(ops, "_labels", lambda selection: ["eager", "reference"])
    monkeypatch.setattr(ops, "machine", lambda device: {"device": device})
    monkeypatch.setattr(ops, "peak_bytes", lambda function, device: 8)
    monkeypatch.setattr(ops, "bytes_per_millisecond", lambda count, device: count)
    monkeypatch.setattr(ops.measure_gpu, "measure", lambda function: next(made_up))
    monkeypatch.setattr(ops.measure_gpu, "bytes_of_a_copy", lambda: 1600)  # so 16 bytes are 0.01 ms
    monkeypatch.setattr(ops.measure_gpu, "exps_per_millisecond", lambda: 1000.0)
    eager, fused = ops.run(Selection(device="cuda"))
    assert eager["over_floor"] == pytest.approx(0.1 / 0.01)
    assert fused["over_floor"] == pytest.approx(0.025 / 0.01) and fused["over_eager"] == 4
    assert fused["host_us"] == 900 and fused["launches"] == 3


def test_modes_of_a_differentiable_case():
    leaf = torch.tensor([3.0], requires_grad=True)
    square = case(lambda: None, leaf=leaf, modes=("both", "forward", "backward"))

    def forward():
        return (leaf**2).sum()

    assert not square.call("forward", forward)().requires_grad
    backward = square.call("backward", forward)
    assert [square.call("both", forward)().item(), backward().item(), backward().item()] == [6, 6, 6]
    assert square.least("both") == (1, 20) and square.least("backward") == (0, 8)


@pytest.mark.slow
def test_a_compiled_backward_is_repeated(monkeypatch):
    loss = ops_cases.loss((2, 3, 65), 8, 0.5, "half", False, "cpu", ("both", "backward"))
    found, _ = records(monkeypatch, [loss], providers=("compile",))
    assert [record.get("problem") for record in found] == [None, None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["ops", "--shapes", "voc,imagenet"], "--shapes: expected some of voc, cityscapes"),
        (["data", "--providers", "fused"], "--providers: expected some of baseline, torch, dali, got fused"),
        (["data", "--components"], "--components belongs to step, got data"),
    ],
)
def test_mistakes_are_named(options, expected, capsys):
    with pytest.raises(SystemExit) as left:
        command.main(options)
    assert left.value.code == 2 and expected in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif("cpp" not in info()["available"], reason="the C++ operators were not compiled")
def test_every_case_of_a_shape(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(ops_cases.CPU_SHAPES, "voc", ((2, 3, 33), (8,)))
    options = ["--shapes", "voc", "--providers", "eager,cpp,cuda", "--json", str(tmp_path / "ops.json")]
    options += ["--csv", str(tmp_path / "ops.csv"), "--profile", str(tmp_path / "traces")]
    assert command.main(["ops", *options]) == 0
    written = json.loads((tmp_path / "ops.json").read_text())
    assert written["skipped"] == ["ops, cuda: does not run on cpu"] and "skipped: ops, cuda" in capsys.readouterr().out
    timed = [record for record in written["records"] if record["provider"] == "cpp"]
    assert {(r["operator"], r["mode"]) for r in timed} == {
        ("multiscale_pseudo_label", "forward"), ("patch_mask", "forward"), ("upsample_cross_entropy", "both"),
        ("upsample_cross_entropy", "forward"), ("upsample_cross_entropy", "backward"),
    }  # fmt: skip
    for found in timed:
        assert set(found) >= EVERYWHERE and found["ms_p20"] <= found["ms_p50"] <= found["ms_p80"]
        assert found["error"] < 1e-5 and found["memory_bytes"] > 0 and found["over_eager"] > 0
        assert found["bytes"] / found["ms_p50"] / 1e6 == pytest.approx(found["gigabytes_per_second"])
    assert len(list((tmp_path / "traces").iterdir())) == len(written["records"])


@pytest.mark.slow
def test_components_are_added_one_after_the_other(monkeypatch):
    monkeypatch.setattr(step, "BLOCK", 1)
    monkeypatch.setattr(components, "ROUNDS", {"builtin": 2})
    found = {r["component"]: r for r in components.run(Selection(shapes=("builtin",)))}
    assert list(found) == list(components.COMPONENTS)
    assert [r["passes"] for r in found.values()] == ["1 + 0", "2 + 1", "2 + 3.2", "2 + 3.8", "3 + 1", "3 + 3.2"]
    assert found["supervised"]["over_supervised"] == 1 and "more_ms" not in found["supervised"]
    for record in found.values():
        assert set(record) >= EVERYWHERE and record["peak_memory_mb"] > 0 and record["backward_ms"] > 0
    assert found["supervised"]["teacher_ms"] == 0 < found["+ LCR"]["teacher_ms"]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["voc", "cityscapes"])
def test_a_step_of_drawn_photographs(config, monkeypatch, tmp_path):
    monkeypatch.setitem(step_configs.DRAWN, config, step_configs.Photographs(6, 50, 70))
    (found,) = step_configs.chosen_configs(Selection(shapes=(config,)), tmp_path).values()
    small = ["--data.crop_size", "32", "--train.batch_size", "2", "--method.patch_size", "8"]
    with step.prepared([*found, "--model.encoder", "resnet18", *small], {"fused": []}) as runs:
        step.steps(runs["fused"])(1)
        assert (len(runs["fused"].dataset.labeled), len(runs["fused"].dataset.unlabeled)) == (2, 3)


def test_what_intervals_cover_together():
    assert measure_gpu.covered([(5, 7), (0, 3), (1, 2), (2.5, 4), (7, 7.5)]) == 6.5
    assert measure_gpu.covered([]) == 0
