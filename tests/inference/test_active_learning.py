"""Images are chosen for doubt and for being unlike each other, as can be said beforehand of drawn ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from maskmatch.inference.active_learning import FARTHEST, choose, describe, most_helpful
from maskmatch.models import Student, from_module


class Colours(nn.Module):
    """Tells red from green by their difference, and is in doubt without one; its features are the colours."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.AvgPool2d(4))
        self.encoder.register_forward_hook(lambda *call: [call[1][0], call[2]])

    def forward(self, images: Tensor) -> Tensor:
        difference = 8 * (images[:, :1] - images[:, 1:2])
        self.encoder(images)
        return torch.cat([difference, -difference], 1)[:, :, ::4, ::4]


@pytest.fixture
def student() -> Student:
    return from_module(Colours(), size_multiple=16, mean=(0, 0, 0), std=(1, 1, 1))


COLOURS = {
    "red": (250, 0, 0),  # certain
    "yellow": (120, 120, 0),
    "yellow_again": (120, 120, 0),
    "blue": (0, 0, 200),
    "orange": (130, 110, 0),  # some doubt, and much like yellow
}


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, Path]:
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 36), colour).save(tmp_path / f"{name}.png")
    return {name: tmp_path / f"{name}.png" for name in COLOURS}


def named(student: Student, drawn: dict[str, Path], labeled: list[str], count: int = 9) -> list[str]:
    paths = [drawn[name] for name in labeled]
    return [one.path.stem for one in most_helpful(student.network, student, list(drawn.values()), paths, count)]


def test_doubtful_ones_first_and_no_two_alike(student: Student, drawn: dict[str, Path]) -> None:
    assert named(student, drawn, [], 2) == ["yellow", "blue"]
    assert named(student, drawn, ["red"], 2) == ["blue", "yellow"]  # yellow has red in it
    assert named(student, drawn, ["yellow"], 1) == ["blue"]


def test_each_is_named_once_and_those_with_masks_never(student: Student, drawn: dict[str, Path]) -> None:
    assert sorted(named(student, drawn, ["red", "blue"])) == ["orange", "yellow", "yellow_again"]
    assert named(student, drawn, list(COLOURS)) == []


def test_what_cannot_be_read_is_passed_over(student: Student, drawn: dict[str, Path]) -> None:
    drawn["blue"].write_text("no image")
    said: list[str] = []
    found = most_helpful(student.network, student, list(drawn.values()), [], 9, skipped=said.append)
    assert len(found) == 4 and len(said) == 1 and "blue.png" in said[0]


def test_figures_of_an_image(student: Student, drawn: dict[str, Path]) -> None:
    """Orange: p = 1 / (1 + exp(-16 * 20 / 255)) of red, and p (1 - p) for both classes."""
    (one,) = most_helpful(student.network, student, [drawn["orange"]], [drawn["yellow"]], 1)
    p = 1 / (1 + math.exp(-16 * 20 / 255))
    assert one.by_class == pytest.approx([p * (1 - p)] * 2, rel=1e-5) and one.doubt == pytest.approx(2 * p * (1 - p))
    a, b = (np.array(COLOURS[name]) / np.linalg.norm(COLOURS[name]) for name in ("orange", "yellow"))
    assert one.distance == pytest.approx(np.linalg.norm(a - b), rel=1e-4)


def test_padding_counts_for_nothing(student: Student) -> None:
    """20 x 36 pixels are shown as 32 x 48, of which black, without any difference, would be all doubt."""
    images = torch.tensor(COLOURS["red"], dtype=torch.uint8)[None, :, None, None].expand(2, 3, 20, 36)
    doubts, features = describe(student.network, student, images)
    assert doubts.shape == (2, 2) and doubts.max() < 1e-4
    assert features == pytest.approx(np.array([[1, 0, 0]] * 2))


def test_the_doubt_about_one_class(student: Student, drawn: dict[str, Path]) -> None:
    """With three classes of which the last is blue's, blue is chosen for it, whatever else is in doubt."""

    class Three(Colours):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([super().forward(images), 8 * images[:, 2:, ::4, ::4] - 6], 1)

    student = from_module(Three(), size_multiple=16, mean=(0, 0, 0), std=(1, 1, 1))
    paths = [drawn[name] for name in ("yellow", "blue")]
    assert most_helpful(student.network, student, paths, [], 1, of_class=0)[0].path.stem == "yellow"
    assert most_helpful(student.network, student, paths, [], 1, of_class=2)[0].path.stem == "blue"


def test_without_an_encoder_the_classes_are_the_features(student: Student) -> None:
    student.network.encoder, encoder = None, student.network.encoder  # type: ignore[assignment]
    student.network.forward = lambda images: images[:, :2]  # type: ignore[method-assign]
    doubts, features = describe(student.network, student, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert doubts.tolist() == [[0.25, 0.25]] and features.flatten().tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    assert encoder is not None


def test_choose_is_greedy_weighted_k_centre() -> None:
    """Against the definition, written out image by image."""
    generator = np.random.default_rng(0)
    features, known = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in generator.normal(size=(2, 30, 4)))
    doubts, known = generator.random(30), known[:3]
    chosen: list[int] = []
    found = choose(doubts, features, known, 12)
    for index, distance in found:
        best = -1.0, -1, 0.0
        for i in set(range(30)) - set(chosen):
            centres = [*known, *features[chosen]]
            near = min(math.dist(features[i], centre) for centre in centres)
            best = max(best, (doubts[i] * near, i, near))
        assert index == best[1] and distance == pytest.approx(best[2])
        chosen.append(index)
    assert choose(doubts, features, known[:0], 1) == [(int(doubts.argmax()), FARTHEST)]
    assert len(choose(doubts, features, known, 99)) == 30
