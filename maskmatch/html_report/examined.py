"""A run's network on its validation images: measured, and the best and the worst of them as pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.data import Dataset, Pair, load_dataset, read_pair
from maskmatch.data.checking.preflight import check_pair, each
from maskmatch.inference.mask_pictures import mask_picture
from maskmatch.inference.trained_model import TrainedModel
from maskmatch.metrics import ConfusionMatrix, Validator, measure
from maskmatch.run_files.versions import data_of

PICTURES = 4
"""Best images, and as many worst ones."""
LONGEST_SIDE = 560
"""Pixels of a picture on the page."""
JPEG_QUALITY = 85
SMALL = 160
"""Pictures up to this side are kept without loss: they are shown enlarged."""
WRONG = np.array([[213, 0, 110]], np.uint8)


@dataclass(frozen=True)
class Examined:
    """What the validation images say of a network; without them `reason` says why there are none."""

    dataset: Dataset | None = None
    pairs: tuple[Pair, ...] = ()
    scores: list[float] = field(default_factory=list)
    """Mean IoU of the classes in the truth of each image; nan where nothing in it is labelled."""
    measured: dict[str, Any] = field(default_factory=dict)
    """`Measurement.record`."""
    reason: str = ""


@dataclass(frozen=True)
class Layer:
    """A mask that lies over the photo."""

    name: str
    uri: str


@dataclass(frozen=True)
class Picture:
    """A validation image with its masks, as data URIs."""

    name: str
    score: float
    width: int
    height: int
    photo: str
    layers: list[Layer]
    classes: list[int]
    """That occur in the truth or in a prediction."""


def examine(model: TrainedModel, progress: Callable[[int, int], object]) -> Examined:
    """Measure the network on the run's validation images, as they are shown in training's validations.

    Args:
        model: of the run.
        progress: is told how many images were done, and of how many.

    Raises:
        UserError: some of the images are missing, damaged, or not what the masks' classes allow.
    """
    try:
        data = data_of(model.run, model.config.data)
        dataset = load_dataset(data, supervised_only=model.config.method.supervised_only, incomplete=True)
    except UserError as error:
        return Examined(reason=f"the run's data cannot be read: {error}")
    pairs = dataset.val
    if not pairs:
        return Examined(dataset, reason="the run has no validation images")
    if not any(pair.image.exists() for pair in pairs):
        return Examined(dataset, reason=f"the run's validation images are not there, such as {pairs[0].image}")
    list(each(lambda pair: check_pair(pair, dataset), pairs))

    scores: list[float] = []

    def seen(labels: Tensor, targets: Tensor) -> None:
        scores.extend(_score(*one, dataset.num_classes) for one in zip(labels, targets, strict=True))
        progress(len(scores), len(pairs))

    validator = Validator(model.student, pairs, dataset.mask_table, len(model.class_names), model.device)
    measured = measure(validator, model.network, lambda counts: counts, seen)
    return Examined(dataset, pairs, scores, measured.record(model.class_names))


def _score(labels: Tensor, target: Tensor, num_classes: int) -> float:
    confusion = ConfusionMatrix(num_classes, labels.device)
    confusion.update(labels, target)
    iou = np.array(confusion.compute().iou)[confusion.matrix.sum(1).cpu().numpy() > 0]
    return float(iou.mean()) if len(iou) else float("nan")


def best_and_worst(scores: Sequence[float]) -> tuple[list[int], list[int]]:
    """Indices of the highest scores, and of the lowest; no image is among both, and none without a score."""
    ranked = [i for i in np.argsort(-np.array(scores), kind="stable").tolist() if not math.isnan(scores[i])]
    best = ranked[:PICTURES]
    return best, ranked[len(best) :][::-1][:PICTURES]


def picture(examined: Examined, index: int, models: Sequence[tuple[str, TrainedModel]]) -> Picture:
    """One validation image with the masks of `models`, each with the name that its mask has on the page."""
    assert examined.dataset is not None  # noqa: S101 - there are scores
    pair = examined.pairs[index]
    assert pair.mask is not None  # noqa: S101 - it was checked
    image, truth = read_pair(pair.image, pair.mask, examined.dataset.mask_table)
    labels = {name: model.predict(image).labels for name, model in models}
    palette = models[0][1].palette
    first = next(iter(labels.values()))
    wrong = np.where((first != truth) & (truth != IGNORE_INDEX), np.uint8(0), np.uint8(IGNORE_INDEX))
    layers = [Layer(name, _mask_uri(label, palette)) for name, label in labels.items()]
    layers += [Layer("truth", _mask_uri(truth, palette)), Layer("errors", _mask_uri(wrong, WRONG))]
    occurring = np.unique(np.concatenate([truth.ravel(), *(label.ravel() for label in labels.values())]))
    return Picture(
        name=_name(pair.image, examined.dataset.root),
        score=examined.scores[index],
        width=image.shape[1],
        height=image.shape[0],
        photo=_photo_uri(image),
        layers=layers,
        classes=[int(value) for value in occurring if value != IGNORE_INDEX],
    )


def _name(image: Path, root: Path) -> str:
    return str(image.relative_to(root) if image.is_relative_to(root) else image.name)


def _photo_uri(image: np.ndarray) -> str:
    photo = Image.fromarray(image)
    if max(photo.size) <= SMALL:
        return _uri(photo, "PNG")
    photo.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _uri(photo, "JPEG", quality=JPEG_QUALITY)


def _mask_uri(labels: np.ndarray, palette: np.ndarray) -> str:
    """Without colour where there is nothing to see."""
    mask = mask_picture(labels, palette)
    mask.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
    return _uri(mask, "PNG", transparency=IGNORE_INDEX, optimize=True)


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
