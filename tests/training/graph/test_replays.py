"""Replayed steps equal eager ones bit for bit, with nothing but the recorded operators left of them."""

import copy
import re
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from maskmatch.commands.command_line import parse_train
from maskmatch.commands.train import main
from maskmatch.common.errors import UserError
from maskmatch.common.signals import StopError
from maskmatch.config import TrainConfig
from maskmatch.method import MaskMatch
from maskmatch.training import build
from maskmatch.training import train as train_in_python
from maskmatch.training.distributed import World
from maskmatch.training.graph import StepGraphs, step_graphs
from maskmatch.training.step import TrainStep
from tests.training.graph.stand_in import Capture, graphs_on_a_cpu
from tests.training.graph.steps import OPTIONS, RECORDED, Batches, assert_equal, make_step, trained
from tests.training.stop_after import StopAfter


@pytest.fixture(autouse=True)
def _cpu():
    # On a CPU the loss looks at its labels, there alone.
    with graphs_on_a_cpu(), mock.patch("maskmatch.ops._upsample_cross_entropy.check_labels"):
        yield


@contextmanager
def seen(numbers):
    """Collects the steps that Python goes through; a replayed one is not among them."""
    take = TrainStep.take

    def noted(self, batches, step, compared):
        numbers.append(step)
        return take(self, batches, step, compared)

    with mock.patch.object(TrainStep, "take", noted):
        yield


REPEATED = {name: options for name, options in OPTIONS.items() if name != "checkpointed activations"}
"""Recomputed dropout draws from a generator that torch sets back by no operator, which the stand-in cannot see."""


@pytest.mark.parametrize("options", REPEATED.values(), ids=REPEATED)
def test_options(options):
    steps = []
    with seen(steps):
        replayed = trained(graphs=True, **copy.deepcopy(options))
    assert steps == ([0, 1, 2, 4] if options.get("supervised_only") else RECORDED)
    assert_equal(replayed, trained(graphs=False, **copy.deepcopy(options)))


RUN = (
    "--train.steps=60", "--train.validate_every=35", "--train.checkpoint_every=20", "--method.warmup_steps=6",
    "--method.ramp_steps=16", "--method.class_thresholds=true", "--method.logit_adjustment=0.5",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_with_a_validation_and_a_resume(fast_options, assert_same_run, tmp_path):
    eager, run = tmp_path / "eager", tmp_path / "run"
    train_in_python(parse_train([*fast_options, *RUN, "--output", str(eager)]))
    with mock.patch.object(build, "step_graphs", lambda config, *_: (StepGraphs(config), None)):
        steps = []
        with seen(steps), pytest.raises(StopError, match="after step 48"):
            train_in_python(parse_train([*fast_options, *RUN, "--output", str(run)]), stop=StopAfter(50))
        assert steps == [0, 1, 2, 6, 7, 8, 9, 21, 22, 23, 29]  # nothing after the validation
        with seen(steps):
            train_in_python(parse_train([*fast_options, *RUN, "--output", str(run), "--resume"]))
        assert steps[11:] == [48, 49, 50, 59]
    assert_same_run(run, eager)


def test_profile(train, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "step_graphs", lambda config, *_: (StepGraphs(config), None))
    with seen(steps := []):
        assert train("--profile", 3, "--output", tmp_path / "run") == 0
    assert steps == [0, 1, 2, *range(8, 14)]  # the last six timed by their parts, and traced; none of 5 to 7
    *_, last = (tmp_path / "run" / "profile.txt").read_text().splitlines()
    assert re.fullmatch(r"[\d.]+ ms a step where they are replayed as CUDA graphs; the table is of eager ones", last)


CHANGES = {
    "nothing": lambda step: None,
    "weight of a loss": lambda step: step._loss_weights["loss_u"].fill_(0.5),
    "learning rate": lambda step: step.optimizer.param_groups[0]["lr"].mul_(2),
    "weight of the teacher's average": lambda step: step._teacher_weight.fill_(0.5),
    "seed of the dropout": lambda step: torch.default_generator.manual_seed(5),
    "thresholds of the classes": lambda step: step.method.class_balance.confidence.copy_(torch.tensor([1, 0.1, 1, 1])),
    "optimizer's count of steps": lambda step: step.optimizer.state[step.guard.parameters[0]]["step"].add_(3),
    "scale of the loss": lambda step: step.loss_scale.value.fill_(2.0**60),
    "image": lambda step: None,
}
SAME = {"nothing"}


def replayed(change):
    """The student and the teacher after a replay before which something was changed."""
    step = make_step(precision="fp16")
    step.graphs = StepGraphs(step.config)
    set_numbers = step.set_numbers
    with seen(steps := []):
        for number in range(13):
            batches = Batches(1, truth=False, seed=number).batches
            if number == 12:
                step.set_numbers = lambda number: (set_numbers(number), CHANGES[change](step))
                if change == "image":
                    batches[0].images.fill_(9)
            losses = step(batches, number)
    assert 12 not in steps
    networks = (step.network, step.teacher.network)
    return list(losses.values()) + [p.detach() for network in networks for p in network.parameters()]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_moves_a_replay(change):
    pairs = zip(replayed(change), replayed("nothing"), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs) == (change in SAME)


def test_a_step_that_is_not_finite_is_skipped():
    step = make_step(precision="fp16")
    step.graphs = StepGraphs(step.config)
    batches = Batches(1, truth=False).batches
    for number in (9, 10, 11):
        step(batches, number)
    before = [parameter.detach().clone() for parameter in step.network.parameters()]
    step.loss_scale.value.fill_(2.0**60)
    with seen(steps := []):
        losses = step(batches, 12)
    assert steps == []
    assert all(loss.isnan() for loss in losses.values())
    assert all(torch.equal(*pair) for pair in zip(before, step.network.parameters(), strict=True))
    assert step.guard.skipped == step.guard.in_a_row == 1
    assert step.loss_scale.value == 2.0**59


def test_results_stay_when_the_next_step_is_replayed():
    step = make_step()
    step.graphs = StepGraphs(step.config)
    found = [step(Batches(1, truth=False, seed=number).batches, number) for number in range(4)]
    assert found[2]["loss"] != found[3]["loss"]


def steps_with(fault, **options):
    """Takes steps of a method with a fault in its loss; the step, and what the steps leave."""
    loss = MaskMatch.loss
    with mock.patch.object(MaskMatch, "loss", lambda self, logits, *rest: loss(self, logits, *rest) * fault(logits)):
        step = make_step(**options)
        step.graphs = StepGraphs(step.config)
        for number in range(4):
            step(Batches(1, truth=False, seed=number).batches, number)
    return step


def read(logits):
    return float(logits.detach().sum() > -1e9)


def fail_in_a_capture(logits):
    if any(isinstance(mode, Capture) for mode in _get_current_dispatch_mode_stack()):
        raise torch.OutOfMemoryError("CUDA out of memory")
    return 1.0


FAULTS = {
    "a value is read": (read, r"_local_scalar_dense waits for the device in .*test_replays.py:\d+"),
    "no memory": (fail_in_a_capture, "OutOfMemoryError: CUDA out of memory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_recorded_goes_on_as_it_is(fault, recovered):
    planted, said = FAULTS[fault]
    step = steps_with(planted)
    assert re.fullmatch(said, step.graphs.fault)
    assert recovered.called == (planted is fail_in_a_capture)
    expected = make_step()
    for number in range(4):
        expected(Batches(1, truth=False, seed=number).batches, number)
    pairs = zip(step.network.parameters(), expected.network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_asked_for_and_cannot_be_recorded_is_an_error(fault):
    planted, said = FAULTS[fault]
    with pytest.raises(UserError, match=f"train.graph true, but this step cannot be captured: {said}"):
        steps_with(planted, graph=True)


@pytest.fixture
def recovered():
    """What torch leaves undone there is on a GPU alone."""
    with mock.patch("maskmatch.training.graph._recover") as recover:
        yield recover


@pytest.mark.parametrize(
    ("graph", "device", "processes", "reason"),
    [
        ("auto", "cpu", 1, None),
        (False, "cpu", 1, None),
        (False, "cuda:0", 1, "train.graph false"),
        ("auto", "cuda:0", 2, "several processes exchange their gradients"),
    ],
)
def test_without_graphs(graph, device, processes, reason):
    assert step_graphs(TrainConfig(graph=graph), torch.device(device), World(size=processes)) == (None, reason)


def test_graphs_on_a_gpu():
    for graph in ("auto", True):
        graphs, reason = step_graphs(TrainConfig(graph=graph), torch.device("cuda:0"), World())
        assert isinstance(graphs, StepGraphs) and reason is None


def test_graphs_where_there_are_none(refusal, tmp_path):
    line = refusal(main, "--train.graph", "true", "--train.device", "cpu", "--output", tmp_path / "run")
    assert line.endswith("train.graph true needs a single process on a CUDA device, got cpu")
    assert not (tmp_path / "run").exists()
    line = refusal(main, "--train.graph", "maybe")
    assert line.endswith("train.graph: expected bool or one of auto, got maybe")
