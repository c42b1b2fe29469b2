"""The real trainer, for a GPU that is not there: it starts, takes steps, and waits for nothing.

From the second step with pseudo-labels on, no value is read, no shape depends on one, and nothing is copied so that the
host would have to wait; batches are made on streams of their own and read only after their event.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

Worker = Callable[..., dict[str, Any]]

VIT = ("--model.arch=dpt", "--model.encoder=tu-test_vit", "--method.patch_size=16")
OPTIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "cuda:0": ("--train.device=cuda:0",),
    "auto": ("--train.device=auto",),
    "bf16": ("--train.precision=bf16",),
    "fp16": ("--train.precision=fp16",),
    "sgd": ("--train.optimizer=sgd",),
    "sgd, fp16": ("--train.optimizer=sgd", "--train.precision=fp16"),
    "not fused": ("--no-fused",),
    "not fused, bf16": ("--no-fused", "--train.precision=bf16"),
    "labels alone": ("--method.supervised_only=true",),
    "consistency alone": ("--method.lcr=false",),
    "local consistency alone": ("--method.consistency=false",),
    "reconstruction": ("--method.ablation.reconstruction=true", "--method.lcr=false"),
    "visible region": ("--method.ablation.region=visible", "--method.masking=grid"),
    "hidden region": (
        "--method.ablation.region=hidden",
        "--method.masking=block",
        "--method.ablation.masked_view=strong",
    ),
    "mean of logits": ("--method.ablation.average=logit", "--method.cutmix=false"),
    "OHEM, class weights": ("--method.ohem=0.25", "--method.class_weights=[1,2,1,1,1,1]"),
    "logit adjustment": ("--method.logit_adjustment=0.5", "--method.class_thresholds=false"),
    "accumulation": ("--train.accumulate=2", "--train.batch_size=4"),
    "checkpointed activations": ("--train.checkpoint_activations=true",),
    "no thread": ("--data.workers=0",),
    "four threads": ("--data.workers=4",),
    "DPT with a ViT": VIT,
    "DPT, checkpointed, bf16": (*VIT, "--train.checkpoint_activations=true", "--train.precision=bf16"),
}
MISTAKES = {
    "device without an index": "ValueError: Expected a torch.device with a specified index",
    "a CPU tensor mixed in": "FakeTensorDeviceMismatchError: ",
    ".item()": "DataDependentOutputException: ",
    "if tensor": "DataDependentOutputException: ",
    "nonzero": "DynamicOutputShapeException: aten.nonzero",
    "boolean index": "DynamicOutputShapeException: aten.nonzero",
    ".cpu()": "WaitError: a blocking copy",
    "torch.tensor on the device": "WaitError: a blocking copy",
    "copy of pageable memory": "WaitError: a copy of pageable memory",
    "generator of the CPU": "RuntimeError: aten.rand.generator: expected a generator of cuda",
    "torch.cuda.synchronize": "WaitError: torch.cuda.synchronize waits",
    "Stream.synchronize": "WaitError: Stream.synchronize waits",
    "Event.synchronize": "WaitError: Event.synchronize waits",
    "batch taken before it is ready": "RuntimeError: .* reads what another stream may still be writing",
    "batch whose memory is not kept": "RuntimeError: batch.images was not recorded on the training's stream",
    "batch made on the training's stream": "RuntimeError: batch.images was made on the training's stream",
}
"""What plants.py puts into the product, and what that ends in."""


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_trains(fake_device: Worker, options: tuple[str, ...]) -> None:
    found = fake_device(train=["--train.graph=false", *options], plant=None)
    assert "error" not in found, f"{found['error']} in {' < '.join(found['at'][::-1])}"
    assert found["steps"] == 3 and found["device"] == "cuda:0" and found["recorded"] == 0
    assert found["backend"] == "reference" if "--no-fused" in options else found["backend"] in ("cuda", "triton")


OF_THE_LOADER = ("cuda:0", "auto", "no thread", "four threads")  # that have the default's step


@pytest.mark.slow
@pytest.mark.parametrize("options", ["logged", *(name for name in OPTIONS if name not in OF_THE_LOADER)])
def test_steps_are_equal(fake_device: Worker, options: str) -> None:
    """Code for CUDA takes other paths than that for the CPU, and a CUDA graph is a record of those."""
    found = fake_device(compare=OPTIONS.get(options, ()), logged=options == "logged")
    assert "error" not in found, f"{found['error']} in {' < '.join(found['at'][::-1])}"
    assert found["operators"] > 100
    assert (found["unlike"], found["reads"]) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", ["default", "sgd, fp16", "labels alone", "accumulation", "checkpointed activations"]
)
def test_it_trains_by_graphs(fake_device: Worker, options: str) -> None:
    """What is beside the recorded step waits for nothing either."""
    found = fake_device(train=OPTIONS[options], plant=None)
    assert "error" not in found, f"{found['error']} in {' < '.join(found['at'][::-1])}"
    assert (found["steps"], found["fault"]) == (8, None)
    assert found["recorded"] == (1 if options == "labels alone" else 2)  # and one that is logged


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(fake_device: Worker, mistake: str) -> None:
    found = fake_device(train=["--train.graph=false"], plant=mistake)
    assert re.match(MISTAKES[mistake], found.get("error", "none"))
