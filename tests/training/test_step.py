"""One step whatever its options: the same losses and weights, and no wait for the device."""

import copy
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from maskmatch.common.batch import Batch
from maskmatch.common.errors import UserError
from maskmatch.config import AblationConfig, MethodConfig, TrainConfig
from maskmatch.method import MaskMatch, Teacher
from maskmatch.method.folding import FoldedNetwork, find_folds
from maskmatch.ops import use_backend
from maskmatch.training.pseudo_label_watch import PseudoLabelCounter
from maskmatch.training.step import TrainStep
from tests.training.graph.operators import READS_OR_BRINGS


def make_network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), norm, nn.ReLU(), nn.Conv2d(8, 4, 1))


def make_batch():
    generator = torch.Generator().manual_seed(1)

    def images():
        return torch.randint(0, 256, (4, 3, 32, 40), generator=generator, dtype=torch.uint8)

    target = torch.randint(0, 4, (4, 32, 40), generator=generator).to(torch.uint8)
    valid = torch.ones(4, 32, 40, dtype=torch.bool)
    valid[0, 20:] = False
    return Batch(images(), target, images(), images(), valid, torch.arange(4) + 7)


def run(network, steps=3, method=None, folds=(), **options):
    """Losses of each step and the student and teacher after the last."""
    network = copy.deepcopy(network)
    teacher = Teacher(network, 0.9)
    defaults = {"warmup_steps": 1, "ramp_steps": 0, "threshold": 0.3, "scales": [1.0, 1.5]}
    config = MethodConfig(**{**defaults, **(method or {})})
    train = TrainConfig(steps=10, **options)
    step = TrainStep(network, teacher, MaskMatch(config, size_multiple=4), train, folds=folds)
    losses = [step([make_batch()], i) for i in range(steps)]
    return losses, [*network.state_dict().values(), *teacher.network.state_dict().values()]


def assert_same(one, other, **tolerance):
    (losses, weights), (other_losses, other_weights) = one, other
    assert [found.keys() for found in losses] == [found.keys() for found in other_losses]
    for found, expected in zip(losses, other_losses, strict=True):
        for name in found:
            torch.testing.assert_close(found[name], expected[name], **tolerance)
    for tensor, expected in zip(weights, other_weights, strict=True):
        torch.testing.assert_close(tensor, expected, **tolerance)


def test_losses_of_a_step():
    losses, _ = run(make_network(nn.BatchNorm2d(8)))
    assert losses[0].keys() == {"loss", "loss_x"}  # warm-up
    for found in losses[1:]:
        assert found.keys() == {"loss", "loss_x", "loss_u", "loss_m", "coverage"}
        torch.testing.assert_close(found["loss"], found["loss_x"] + found["loss_u"] + 0.2 * found["loss_m"])
        assert 0 < found["coverage"] < 1
        assert not any(value.requires_grad for value in found.values())


def test_what_changes_from_step_to_step():
    """The ramp's weights and the teacher's momentum, by their definitions."""
    network = make_network(nn.BatchNorm2d(8))
    teacher = Teacher(network, 0.7)
    config = MethodConfig(warmup_steps=1, ramp_steps=4, threshold=0.3, scales=[1.0])
    step = TrainStep(network, teacher, MaskMatch(config, size_multiple=4), TrainConfig(steps=10))
    average = [parameter.detach().clone() for parameter in network.parameters()]
    for number in range(6):
        losses = step([make_batch()], number)
        if ramp := [0, 0.25, 0.5, 0.75, 1, 1][number]:
            torch.testing.assert_close(
                losses["loss"], losses["loss_x"] + ramp * (losses["loss_u"] + 0.2 * losses["loss_m"])
            )
        momentum = min(1 - 1 / (number + 1), 0.7)
        average = [
            momentum * a + (1 - momentum) * p.detach() for a, p in zip(average, network.parameters(), strict=True)
        ]
    for found, expected in zip(teacher.network.parameters(), average, strict=True):
        torch.testing.assert_close(found, expected)


def test_joint_branches_equal_sequential_ones():
    network = make_network(nn.GroupNorm(2, 8))
    assert_same(run(network, branches="joint"), run(network), rtol=1e-5, atol=1e-6)


def test_joint_branches_are_refused_with_batchnorm():
    with pytest.raises(UserError, match=r"train.branches joint .* BatchNorm"):
        run(make_network(nn.BatchNorm2d(8)), branches="joint")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_full_precision(precision):
    network = make_network(nn.BatchNorm2d(8))
    half, full = run(network, precision=precision), run(network)
    for found, expected in zip(half[0], full[0], strict=True):
        for name in ("loss", "loss_x"):
            assert found[name].dtype == torch.float32
            torch.testing.assert_close(found[name], expected[name], rtol=0.05, atol=0.02)
    assert all(tensor.dtype != getattr(torch, {"bf16": "bfloat16", "fp16": "float16"}[precision]) for tensor in half[1])
    assert any(not torch.equal(*pair) for pair in zip(half[1], full[1], strict=True))


def test_networks_compute_in_the_chosen_precision():
    network, seen = make_network(nn.BatchNorm2d(8)), []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append((module.training, output.dtype)))
    run(network, precision="bf16")
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}  # student and teacher


def test_fp16_skips_a_step_whose_scaled_gradients_overflow():
    network = make_network(nn.BatchNorm2d(8))
    teacher = Teacher(network, 0.9)
    method = MaskMatch(MethodConfig(supervised_only=True), size_multiple=4)
    step = TrainStep(network, teacher, method, TrainConfig(steps=10, precision="fp16"))
    step.loss_scale.value.fill_(2.0**60)
    before = copy.deepcopy(list(network.parameters()))
    step([make_batch()], 0)
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    assert step.loss_scale.value == 2.0**59


class NothingIsRead(TorchDispatchMode):
    """Fails where a value comes to the host or a constant from it: on a GPU either would wait for the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not str(function).startswith(tuple(f"aten.{name}" for name in READS_OR_BRINGS)), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "method",
    [
        {},
        {"ablation": AblationConfig(region="visible")},
        {"ohem": 0.5, "class_weights": [1.0, 2.0, 1.0, 1.0]},
        {"masking": "block", "class_thresholds": True, "logit_adjustment": 0.5},
    ],
    ids=["plain", "region", "OHEM", "blocks and class balance"],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_reads_nothing_from_the_device(fused, method, precision):
    network = make_network(nn.BatchNorm2d(8))
    teacher = Teacher(network, 0.9)
    config = MethodConfig(warmup_steps=0, ramp_steps=0, **method)
    train = TrainConfig(steps=10, precision=precision)
    step = TrainStep(
        network,
        teacher,
        MaskMatch(config, size_multiple=4),
        train,
        counter=PseudoLabelCounter(4, 0.5, "cpu"),
    )
    with nullcontext() if fused else use_backend("reference"):
        batches = [make_batch(), make_batch()]
        step(batches, 0)
        # The reference checks its labels on the CPU, and there alone.
        with NothingIsRead(), mock.patch("maskmatch.ops._upsample_cross_entropy.check_labels"):
            step(batches, 1, compare=True)


@pytest.mark.slow
def test_compiled_step_equals_eager_without_a_graph_break():
    """Networks and all else are compiled with fullgraph=True, which raises at a graph break."""
    network = make_network(nn.BatchNorm2d(8))
    # Every pixel counts: a confidence that rounds across the threshold would be a step in the loss.
    method = {"ablation": AblationConfig(region="hidden"), "threshold": 0.0, "scales": [1.5]}
    options = {"method": method, "optimizer": "sgd", "lr": 0.1}
    eager = run(network, **options)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = run(network, compile=True, **options)
    assert counters["graph_break"] == {}
    assert 8 <= counters["stats"]["unique_graphs"] <= 13  # student, teacher and the parts between, a few of them twice
    assert_same(compiled, eager, rtol=1e-4, atol=1e-5)


def test_folded_teacher_gives_the_same_steps():
    network = make_network(nn.BatchNorm2d(8))
    folds = find_folds(network, 32)
    assert len(folds) == 1
    plain = run(network, steps=6)
    assert_same(run(network, steps=6, folds=folds), plain, rtol=1e-5, atol=1e-6)
    with mock.patch.object(FoldedNetwork, "refresh"), pytest.raises(AssertionError):  # it does label
        assert_same(run(network, steps=6, folds=folds), plain, rtol=1e-5, atol=1e-6)
