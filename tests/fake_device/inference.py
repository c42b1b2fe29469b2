"""Evaluation and prediction on the fake device, as far as they go before they read a value."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from device import fake_device
from training import real

from maskmatch.commands import evaluate, predict
from maskmatch.inference import trained_model as trained


def on_fake_device(call: Callable[[], Any]) -> Any:
    """Call it where networks are made and loaded as they are, before they are put on the device."""
    with fake_device(), ExitStack() as stack:
        for name in ("build_student", "_load_into"):
            stack.enter_context(mock.patch.object(trained, name, real(getattr(trained, name))))
        return call()


def evaluates(folder: Path, run: Path, device: str) -> None:
    on_fake_device(lambda: evaluate.main([str(run), "--device", device, "--output", str(folder / "evaluation")]))


def predicts(folder: Path, run: Path, device: str) -> None:
    images = Path(trained.load(run, device="cpu").config.data.root or "") / "images"
    argv = [str(run), str(images), "--device", device, "--output", str(folder / "masks")]
    on_fake_device(lambda: predict.main(argv))


def loaded_array(folder: Path, run: Path, device: str) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    on_fake_device(lambda: trained.load(run, device=device).predict(image))


def loaded_tensor(folder: Path, run: Path, device: str) -> dict[str, Any]:
    def call() -> dict[str, Any]:
        model = trained.load(run, device=device)
        found = model.predict(torch.zeros(2, 3, 40, 50, dtype=torch.uint8, device="cuda"))
        return {"device": str(model.device), "labels": str(found.labels.device), "shape": list(found.labels.shape)}

    return on_fake_device(call)
