"""The dry run's figures: against what the parts must be, and the profiler's peak of the same step run for real."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from maskmatch.commands.train import main
from maskmatch.common.batch import Batch
from maskmatch.config import AblationConfig, Config, DataConfig, MethodConfig, ModelConfig, TrainConfig
from maskmatch.method import Teacher
from maskmatch.method.reconstruction import head_for
from maskmatch.models import build_student
from maskmatch.ops import use_backend
from maskmatch.training.memory import measure_memory
from maskmatch.training.step import TrainStep, make_method

CLASSES = 6


def configured(crop=192, batch_size=4, **train):
    """Small in parameters and large in activations, as real runs are."""
    return Config(
        data=DataConfig(crop_size=crop),
        model=ModelConfig("DeepLabV3Plus", "tu-test_resnet"),
        method=MethodConfig(scales=[0.75, 1.0, 1.25], warmup_steps=0, ramp_steps=0),
        train=TrainConfig(steps=9, batch_size=batch_size, **train),
    )


def measured_peak(config):
    """Bytes, by torch's memory profiler, of a whole real step after the one that makes the optimizer's state."""
    size, crop = config.train.batch_size, config.data.crop_size
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        student = build_student(config.model, CLASSES)
        network = student.network.to(memory_format=torch.channels_last)
        step = TrainStep(network, Teacher(network, 0.9), make_method(config.method, student, CLASSES), config.train)

        def images():
            return torch.randint(0, 256, (size, crop, crop, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

        target = torch.randint(0, CLASSES, (size, crop, crop), dtype=torch.uint8)
        valid = torch.ones(size, crop, crop, dtype=torch.bool)
        batch = Batch(images(), target, images(), images(), valid, torch.arange(size))
        step([batch], 0)
        step([batch], 1)
    in_use = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            in_use += event.nbytes()
            peak = max(peak, in_use)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [configured(), configured(checkpoint_activations=True), configured(precision="bf16", optimizer="sgd")],
    ids=["fp32", "checkpointed", "bf16"],
)
def test_estimate_is_the_profilers_peak(config):
    assert measure_memory(config, CLASSES).peak == pytest.approx(measured_peak(config), rel=0.15)


@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 1), ("adamw", 2)])
def test_parts(optimizer, states):
    config = configured(crop=64, batch_size=2, optimizer=optimizer)
    network = build_student(config.model, CLASSES).network
    parameters = sum(4 * parameter.numel() for parameter in network.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    memory = measure_memory(config, CLASSES)
    assert memory.network == memory.teacher == parameters + buffers
    assert memory.gradients == pytest.approx(parameters, rel=0.005)  # at the peak a branch's first ones lie beside them
    assert memory.optimizer == pytest.approx(states * parameters, rel=0.001)  # and its step counters
    assert memory.batch == 2 * 64 * 64 * (3 * 3 + 1 + 1) + 2 * 8


def test_a_gpu_keeps_more():
    config = configured(crop=64, batch_size=2, device="cpu")
    plain, eager, graphs = (
        measure_memory(replace(config, train=replace(config.train, **train)), CLASSES)
        for train in ({}, {"device": "cuda", "graph": False}, {"device": "cuda:0"})
    )
    convolutions = [m for m in build_student(config.model, CLASSES).network.modules() if isinstance(m, nn.Conv2d)]
    assert eager.teacher - plain.teacher == sum(4 * layer.weight.numel() for layer in convolutions)
    assert graphs == replace(eager, batch=2 * eager.batch)
    assert eager == replace(plain, teacher=eager.teacher)


def test_a_head_for_the_reconstruction_is_planned_too():
    config = configured(crop=64, batch_size=2)
    method = replace(config.method, lcr=False, ablation=AblationConfig(reconstruction=True))
    without, with_it = (
        measure_memory(replace(config, method=one), CLASSES) for one in (replace(config.method, lcr=False), method)
    )
    head = head_for(build_student(config.model, CLASSES).network)
    parameters = sum(4 * parameter.numel() for parameter in head.parameters())
    assert with_it.optimizer - without.optimizer == pytest.approx(2 * parameters, rel=0.001)


def test_operators_that_are_not_compiled_are_planned_too():
    config = configured(crop=64, batch_size=2)
    fused = measure_memory(config, CLASSES)
    with use_backend("reference"):
        plain = measure_memory(config, CLASSES)
    assert (plain.network, plain.optimizer, plain.batch) == (fused.network, fused.optimizer, fused.batch)


@pytest.mark.slow
def test_what_the_switches_save():
    config = configured()
    peak = measure_memory(config, CLASSES).peak
    for saving in ({"checkpoint_activations": True}, {"precision": "bf16"}, {"batch_size": 2}):
        assert measure_memory(replace(config, train=replace(config.train, **saving)), CLASSES).peak < 0.9 * peak, saving


@pytest.mark.slow
def test_dry_run_plans_for_a_gpu_without_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--data.name", "folder", "--data.num_classes", "4", "--data.crop_size", "64"]
    options += ["--dry_run", "--train.device", "cuda", "--train.precision", "fp16"]
    assert main(options) == 0
    out = capsys.readouterr().out
    for words in ("8 labelled", "64 x 64, fp16", "teacher", "peak", "--train.checkpoint_activations true", "MiB"):
        assert words in out
    sizes = {line[:48].strip(): float(line[48:].split()[0]) for line in out.splitlines() if "MiB" in line}
    made = sizes["gradients"] + sizes["activations and temporaries"]
    assert sizes["of it the pool of the CUDA graphs, kept"] == pytest.approx(made, abs=1)
    monkeypatch.setattr("maskmatch.training.memory._variants", lambda config: [])
    assert main([*options, "--train.graph", "false"]) == 0
    assert "CUDA graphs" not in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_baseline_takes_its_networks_and_optimizer_on_top():
    plain, beside = (measure_memory(configured(crop=64, baseline_every=every), CLASSES) for every in (0, 2))
    assert beside.baseline == plain.network + plain.teacher + plain.optimizer
    assert beside.peak == plain.peak + beside.baseline
