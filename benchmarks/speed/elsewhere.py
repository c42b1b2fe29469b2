"""A training step of another trainer's network, with its own loss and with ours: Hugging Face's Segformer.

A B0 of random weights, 150 classes, images of 512 x 512; forward, loss and backward, in turns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.provenance import machine
from benchmarks.speed.measure import milliseconds, peak_bytes, percentiles
from benchmarks.speed.selection import Selection
from maskmatch.ops import upsample_cross_entropy

COLUMNS = ("shape", "provider", "loss", "ms_p20", "ms_p50", "ms_p80", "over_own_loss", "peak_memory_mb")
SHAPES = ()  # one
PROVIDERS = ("own loss", "upsample_cross_entropy")
BATCH, SIDE, CLASSES = 2, 512, 150
ROUNDS = 9


def run(selection: Selection) -> Iterator[dict[str, Any]]:
    """One record for each loss."""
    if importlib.util.find_spec("transformers") is None:
        selection.skip("elsewhere: transformers is not installed")
        return
    functions = _steps(selection.device)
    times = milliseconds(functions, ROUNDS, selection.device)
    own = percentiles(times["own loss"])["ms_p50"]
    for provider in selection.chosen_providers(PROVIDERS):
        step = functions[provider]
        measured = percentiles(times[provider])
        yield (
            machine(selection.device)
            | measured
            | {
                "area": "elsewhere",
                "shape": f"{BATCH}x{CLASSES}x{SIDE}x{SIDE}",
                "provider": provider,
                "loss": step(),
                "over_own_loss": own / measured["ms_p50"],
                "peak_memory_mb": peak_bytes(step, selection.device) / 2**20,
            }
        )


def _steps(device: str) -> dict[str, Callable[[], float]]:
    """Provider -> a step of one network on the same images, which returns its loss."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    # Nothing is dropped, so that both losses are of the same logits.
    config = SegformerConfig(num_labels=CLASSES, drop_path_rate=0.0, classifier_dropout_prob=0.0)
    network = SegformerForSemanticSegmentation(config).to(device).train()
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device)
    target = torch.randint(CLASSES, (BATCH, SIDE, SIDE), device=device)
    target[:, : SIDE // 8] = 255  # not labelled

    def step(loss: Callable[[], Tensor]) -> float:
        network.zero_grad()
        value = loss()
        value.backward()
        return value.item()

    return {
        "own loss": partial(step, lambda: network(images, labels=target).loss),
        "upsample_cross_entropy": partial(step, lambda: upsample_cross_entropy(network(images).logits, target)),
    }
