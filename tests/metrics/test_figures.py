"""The pictures hold what was given to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.metrics import save_curves, save_predictions

PALETTE = np.array([(200, 10, 20), (10, 200, 30), (20, 30, 200)], np.uint8)
NAMES = ("one", "two", "three")


def share(path: Path, color: tuple[int, int, int] | np.ndarray) -> float:
    """Part of the picture's pixels that have exactly this colour."""
    return float((np.asarray(Image.open(path).convert("RGB")) == np.asarray(color)).all(-1).mean())


def row(height: int, width: int, truth: int, label: int) -> tuple[np.ndarray, ...]:
    size = (height, width)
    return (
        np.full((*size, 3), 127, np.uint8),
        np.full(size, truth, np.uint8),
        np.full(size, label, np.uint8),
        np.full(size, 1.0, np.float32),
    )


@pytest.mark.parametrize("size", [(96, 96), (180, 240), (7, 5), (1024, 2048)])
def test_panels_have_one_size_and_the_palettes_colours(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "predictions.png"
    save_predictions(path, [row(*size, 0, 1)] * 2, PALETTE, NAMES)
    image, truth, label = share(path, (127, 127, 127)), share(path, PALETTE[0]), share(path, PALETTE[1])
    assert min(image, truth, label) > 0.1
    # The legend adds a swatch to the two colours, and a panel may end a pixel earlier than its neighbour.
    assert truth == pytest.approx(label, rel=0.03)
    assert truth == pytest.approx(image, rel=0.06)
    assert 0 < share(path, PALETTE[2]) < 0.01  # in the legend alone


def test_images_of_different_sizes(tmp_path: Path) -> None:
    path = tmp_path / "predictions.png"
    save_predictions(path, [row(40, 80, 0, 1), row(80, 40, 0, 1)], PALETTE, NAMES)
    assert min(share(path, PALETTE[0]), share(path, PALETTE[1])) > 0.1


def test_ignored_pixels_are_named(tmp_path: Path) -> None:
    paths = tmp_path / "with.png", tmp_path / "without.png"
    for path, truth in zip(paths, (IGNORE_INDEX, 1), strict=True):
        save_predictions(path, [row(40, 40, truth, 1)], PALETTE, NAMES)
    assert share(paths[0], (255, 255, 255)) > share(paths[1], (255, 255, 255)) + 0.1
    legends = [np.asarray(Image.open(path).convert("L"))[-35:] for path in paths]
    assert (legends[0] < 128).sum() > (legends[1] < 128).sum()  # one more word


RECORDS = [
    {"step": step, "loss": 2.0 / step, "loss_x": 1.0 / step, "coverage": 0.5, "lr": 0.1} for step in range(1, 20)
]


def colors(path: Path) -> int:
    """Number of strongly coloured pixels, the curves."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=-1) > 100).sum())


def test_every_curve_is_drawn(tmp_path: Path) -> None:
    drawn = []
    for added in ({}, {"loss_u": 1.5}, {"loss_m": 1.2}, {"miou_student": 0.5}, {"miou_teacher": 0.3}):
        save_curves(tmp_path / "curves.png", [record | added for record in RECORDS])
        drawn.append(colors(tmp_path / "curves.png"))
    assert min(drawn[1:]) > drawn[0] > 0


@pytest.mark.parametrize(
    "records",
    [[], RECORDS[:1], [{"step": 1, "loss": 1.0, "coverage": None}], [{"step": 3, "miou_teacher": 0.2}]],
)
def test_runs_with_few_records(records: list[dict[str, float]], tmp_path: Path) -> None:
    save_curves(tmp_path / "curves.png", records)
    assert Image.open(tmp_path / "curves.png").size[0] > 500
