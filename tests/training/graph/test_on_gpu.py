"""CUDA graphs on a device: replayed steps equal eager ones bit for bit, and a capture that fails leaves no trace."""

import copy
from unittest import mock

import pytest
import torch

from maskmatch.method import MaskMatch
from maskmatch.training.graph import StepGraphs
from tests.training.graph.steps import OPTIONS, Batches, assert_equal, make_step, trained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def _repeatable(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(options):
    replayed = trained(graphs=True, device="cuda", **copy.deepcopy(options))
    assert_equal(replayed, trained(graphs=False, device="cuda", **copy.deepcopy(options)))


def test_compiled():
    replayed = trained(graphs=True, device="cuda", compile=True)
    torch._dynamo.reset()
    assert_equal(replayed, trained(graphs=False, device="cuda", compile=True))


FAULTS = {
    "a value is read": (lambda logits: float(logits.detach().sum() > -1e9), "_local_scalar_dense waits for the device"),
    "the device is waited for": (lambda logits: torch.cuda.synchronize() or 1.0, "captur"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_recorded_goes_on_as_it_is(fault):
    planted, said = FAULTS[fault]
    loss = MaskMatch.loss
    step, expected = make_step("cuda"), make_step("cuda")
    step.graphs = StepGraphs(step.config)
    with mock.patch.object(MaskMatch, "loss", lambda self, logits, *rest: loss(self, logits, *rest) * planted(logits)):
        for number in range(5):
            step(Batches(1, truth=False, seed=number, device="cuda").batches, number)
    assert said in step.graphs.fault
    for number in range(5):
        expected(Batches(1, truth=False, seed=number, device="cuda").batches, number)
    pairs = zip(step.network.parameters(), expected.network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    again = StepGraphs(step.config)  # and another capture goes through
    step.graphs = again
    for number in range(9, 14):
        step(Batches(1, truth=False, seed=number, device="cuda").batches, number)
    assert again.fault is None
    assert freed_at_once()


def freed_at_once():
    """Whether memory comes back that a second stream has used, which torch puts off during a capture."""
    stream = torch.cuda.Stream()
    addresses = []
    for _ in range(2):
        tensor = torch.empty(2**22, device="cuda")
        addresses.append(tensor.data_ptr())
        tensor.record_stream(stream)
        del tensor
        torch.cuda.synchronize()
    return addresses[0] == addresses[1]
