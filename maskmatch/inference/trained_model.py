"""What a run has learned, ready to use: `load(RUN).predict(image)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from maskmatch.common.device import find_device
from maskmatch.common.errors import UserError
from maskmatch.config import Config
from maskmatch.data.decoding.classes import parse_palette, voc_palette
from maskmatch.data.decoding.files import EIGHT_BIT_MODES
from maskmatch.inference.modes import WHOLE, Inference, predict_batch
from maskmatch.models import Student, build_student
from maskmatch.models.weight_files import misfits, read_weights
from maskmatch.run_files import checkpoint as checkpoints
from maskmatch.run_files.config_file import read_config

Which = Literal["teacher", "student"]


class Prediction(NamedTuple):
    """Tensors on the image's device where the image was a tensor, else numpy arrays."""

    labels: Any  # uint8 [H, W] ([N, H, W] of a batch), class indices
    confidence: Any  # float32, likewise, the labels' softmax probabilities


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, and what belongs to it."""

    run: Path
    checkpoint: Path
    """Where the weights were read from: a checkpoint's folder or a file."""
    weights: Which
    config: Config
    """Of the run."""
    student: Student
    """The network in eval mode, on its device, and how to feed it."""
    class_names: tuple[str, ...]
    palette: np.ndarray
    """Colour of each class, uint8 [C, 3]."""

    @property
    def network(self) -> nn.Module:
        """Takes normalised images [N, 3, h, w], returns logits at its own stride."""
        return self.student.network

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the views that it was trained on."""
        return self.config.data.crop

    def predict(self, image: np.ndarray | Image.Image | Tensor, how: Inference = WHOLE) -> Prediction:
        """Class and confidence of every pixel, at the image's own resolution.

        Args:
            image: of any size, RGB: a PIL image of any mode (turned upright as its EXIF says), a numpy array
                uint8 [H, W, 3], or a tensor [3, H, W] or [N, 3, H, W], uint8 or floating point in [0, 1].
            how: the image is shown to the network.

        Raises:
            TypeError, ValueError: it is no such image.
        """
        if isinstance(image, Tensor):
            images = _checked_tensor(image)
            outputs = predict_batch(self.network, self.student, images.to(self.device), how)
            labels, confidence = (output.to(image.device) for output in outputs)
            return Prediction(labels, confidence) if image.ndim == 4 else Prediction(labels[0], confidence[0])
        pixels = torch.tensor(_pixels(image), device=self.device).permute(2, 0, 1)[None]
        labels, confidence = predict_batch(self.network, self.student, pixels, how)
        return Prediction(labels[0].cpu().numpy(), confidence[0].cpu().numpy())


def load(
    run: str | Path, *, checkpoint: str | Path = "best", weights: Which = "teacher", device: str = "auto"
) -> TrainedModel:
    """Load a run's network.

    Args:
        run: the run's folder.
        checkpoint: `best` (on val), `last`, or the path of a checkpoint's folder or of a file of weights.
        weights: which of the two networks; a file of weights has only one.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: it is no run, has no such checkpoint, the checkpoint is damaged, or its weights are those of
            another network.
    """
    run = Path(run)
    if weights not in ("teacher", "student"):
        raise UserError(f"weights: expected teacher or student, got {weights}")
    if not (run / "config.yaml").is_file():
        raise UserError(f"expected the folder of a run, found no {run / 'config.yaml'}")
    place = find_device(device, "device")
    config = read_config(run / "config.yaml")
    names = _class_names(config, run)
    path = _find_checkpoint(run, str(checkpoint))
    with torch.random.fork_rng(devices=[]):  # the random start is overwritten, and nobody's randomness shall notice
        student = build_student(replace(config.model, encoder_weights="none"), len(names))
    given = checkpoints.load_weights(path, weights) if path.is_dir() else read_weights(path, "checkpoint").tensors
    _load_into(student.network, given, path, len(names))
    network = student.network.eval().requires_grad_(False)
    network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    colors = config.data.palette
    palette = parse_palette(colors, len(names)) if colors else voc_palette(len(names))
    return TrainedModel(run, path, weights, config, student, names, palette)


def _class_names(config: Config, run: Path) -> tuple[str, ...]:
    names, count = config.data.class_names, config.data.num_classes
    if names is None or (count is not None and count != len(names)):
        got = "none" if names is None else f"{len(names)}, and data.num_classes {count}"
        raise UserError(f"data.class_names: expected one name a class, got {got}: {run / 'config.yaml'}")
    return tuple(names)


def _find_checkpoint(run: Path, name: str) -> Path:
    """The folder or file that `--checkpoint` means."""
    folder = run / "checkpoints"
    path = folder / name if name in ("best", "last") else Path(name)
    if path.is_dir() or (path.is_file() and name not in ("best", "last")):
        return path.resolve()
    there = sorted(path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not there:
        raise UserError(f"{run} has no checkpoint: the run has not saved any yet, or its checkpoints folder is gone")
    raise UserError(f"checkpoint: expected best, last or a path, found no {path}; {folder} has {', '.join(there)}")


def _load_into(network: nn.Module, given: Mapping[str, Tensor], path: Path, num_classes: int) -> None:
    own = network.state_dict()
    classifier, problem = misfits(own, given, num_classes)
    if problem:
        raise UserError(f"{path} is not of the run's model.arch and model.encoder: {problem}")
    if classifier:
        got = given[classifier[0]].shape[0]
        raise UserError(f"{path} is a model of {got} classes, but the run's configuration has {num_classes}")
    network.load_state_dict(given)


def _pixels(image: np.ndarray | Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if isinstance(image, Image.Image):
        if image.mode not in EIGHT_BIT_MODES:
            raise ValueError(f"image must have 8 bits a channel, got mode {image.mode}")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image must be a numpy array, a PIL image or a tensor, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    return image


def _checked_tensor(image: Tensor) -> Tensor:
    """[N, 3, H, W]."""
    known = image.dtype == torch.uint8 or image.is_floating_point()
    if not known or image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.numel():
        raise ValueError(
            "image must be [3, H, W] or [N, 3, H, W], uint8 or floating point in [0, 1], "
            f"got {image.dtype} {list(image.shape)}"
        )
    images = image if image.ndim == 4 else image[None]
    if images.is_floating_point() and (largest := images.amax().item()) > 2:  # an antialias may go a little above 1
        raise ValueError(f"image must be uint8 or floating point in [0, 1], got {image.dtype} values up to {largest:g}")
    return images.float() if images.is_floating_point() else images
