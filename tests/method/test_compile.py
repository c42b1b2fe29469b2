"""The parts of a step through torch.compile, one after the other: the same numbers, and nothing is lost between them.

`make older-torch` runs this on the oldest supported torch and on others whose compiler had faults of its own.
"""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from maskmatch.config import AblationConfig, MethodConfig
from maskmatch.method import DIVISORS, MaskMatch, Teacher

pytestmark = pytest.mark.slow

OPTIONS = {
    "plain": {},
    "visible region of the strong view": {"ablation": AblationConfig(region="visible", masked_view="strong")},
    "without CutMix": {"cutmix": False, "ablation": AblationConfig(region="hidden")},
    "OHEM and class weights": {"ohem": 0.5, "class_weights": [1.0, 2.0, 1.0, 1.0]},
    "supervised": {"supervised_only": True},
}


def parts_of_a_step(method, network, teacher, batch):
    """What each compiled part returns, by name."""
    found = {"draw": batch}
    batch = found["draw"] = method.draw(batch)
    found["divisors"] = method.divisors(batch)
    weights, pseudo = method.ramp_up.weights(5), None
    if len(weights) > 1:
        pseudo = found["pseudo"] = method.pseudo_labels(teacher, batch)
        found["confident"] = method.confident(pseudo)
    for name in weights:
        branch = found[name] = method.branch(name, batch, pseudo)
        (logits,) = method.logits(network, [branch])
        found[f"loss of {name}"] = method.loss(
            logits, branch, dict(zip(DIVISORS, found["divisors"], strict=True))[name]
        )
        found[f"gradient of {name}"] = torch.autograd.grad(found[f"loss of {name}"], list(network.parameters()))
        if name != "loss_x":
            found[f"agreeing in {name}"] = method.agreeing(logits.detach(), branch)
    return found


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_parts_in_sequence(monkeypatch, network, batch, options):
    config = MethodConfig(warmup_steps=0, ramp_steps=0, threshold=0.3, scales=[0.75, 1.0], patch_size=8, **options)
    compiled = MaskMatch(config, size_multiple=4)
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    compiled.compile()
    teacher = Teacher(copy.deepcopy(network), 0.9)
    network.train()
    for shift in range(2):  # the second time nothing is traced
        shown = type(batch)(*(field if field is None else field.roll(shift, 0) for field in batch))
        expected = parts_of_a_step(MaskMatch(config, size_multiple=4), network, teacher, shown)
        found = parts_of_a_step(compiled, network, teacher, shown)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(
                found[name], expected[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
