"""Which masks are held out, against the definition: at most a fifth, whole scenes, each class with a mask left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskmatch.planning.held_out import choose, hold_out, unsure


@given(seed=st.integers(0, 10**6), number=st.integers(5, 40), classes=st.integers(2, 8), scenes=st.integers(2, 20))
def test_whole_groups_and_a_mask_of_every_class_left(seed: int, number: int, classes: int, scenes: int) -> None:
    rng = np.random.default_rng(seed)
    shown = rng.random((number, classes)) < 0.3
    groups = rng.integers(0, scenes, number).tolist()
    held = choose(shown, groups, number // 5)
    rest = [i for i in range(number) if i not in held]
    assert held == sorted(set(held)) and len(held) <= number // 5
    assert {groups[i] for i in held}.isdisjoint(groups[i] for i in rest)
    assert (shown[rest].any(0) == shown.any(0)).all()


def test_every_class_is_held_out_where_it_can_be() -> None:
    shown = np.zeros((20, 5), bool)
    shown[:, 0] = True
    for label, places in ((1, (3, 4)), (2, (8, 9)), (3, (15, 16)), (4, (19,))):
        shown[places, label] = True
    held = choose(shown, range(20), 4)
    assert shown[held].any(0).tolist() == [True, True, True, True, False]  # of the last there is a single mask


def few(number: int, scenes: list[int]) -> np.ndarray:
    """Thumbnails that are near to each other where the scene is the same."""
    rng = np.random.default_rng(0)
    of_scene = {scene: rng.normal(0, 10, 12) for scene in sorted(set(scenes))}
    return np.stack([of_scene[scene] + rng.normal(0, 1, 12) for scene in scenes]).astype(np.float32)


def test_scenes_by_names_are_whole_where_their_images_are_alike() -> None:
    scenes = [i // 3 for i in range(30)]
    images = [Path(f"images/Seq{scene}_f{i:05d}.jpg") for i, scene in enumerate(scenes)]
    shown = np.ones((30, 2), bool)
    held = hold_out(images, shown, few(30, scenes))
    assert len(held.masks) == 6 and len({scenes[i] for i in held.masks}) == 2
    assert held.by.startswith("2 of 10 scenes by their names, whole: Seq")
    years = hold_out(images, shown, few(30, list(range(30))))  # nothing is alike: the names say something else
    assert len({scenes[i] for i in years.masks}) == 6 and "spread" in years.by


def test_folders_are_whole_and_one_large_scene_is_said() -> None:
    images = [Path(f"images/city{i // 4}/{i}.jpg") for i in range(20)]
    held = hold_out(images, np.ones((20, 2), bool), np.full((20, 12), np.nan))
    assert len({i // 4 for i in held.masks}) == 1 and len(held.masks) == 4
    two = [Path(f"images/{'ab'[i % 2]}/{i}.jpg") for i in range(20)]
    held = hold_out(two, np.ones((20, 2), bool), np.full((20, 12), np.nan))
    assert len(held.masks) == 4 and "no whole scene is small enough" in held.by


def test_copies_of_an_image_stay_together() -> None:
    images = [Path(f"all/photo{i // 3 * 7}_jpg.rf.{i:04x}.jpg") for i in range(30)]
    held = hold_out(images, np.ones((30, 2), bool), few(30, list(range(30))))
    assert len(held.masks) == 6 and len({i // 3 for i in held.masks}) == 2 and "copies" in held.by


@pytest.mark.parametrize("number", [1, 4])
def test_few_masks_are_all_learned_from(number: int) -> None:
    images = [Path(f"{i}.jpg") for i in range(number)]
    held = hold_out(images, np.ones((number, 2), bool), np.zeros((number, 3)))
    assert held.masks == [] and "too few" in held.by


def test_uncertainty_is_that_of_a_mean_of_independent_classes() -> None:
    """Against draws of IoUs: each class's from image to image, then the mean over classes."""
    shown = np.zeros((16, 3), bool)
    for label, number in enumerate((16, 8, 2)):
        shown[:number, label] = True
    ious = np.random.default_rng(0).normal(50, 25, (4000, 16, 3))
    means = np.stack([ious[:, shown[:, label], label].mean(1) for label in range(3)]).mean(0)
    assert unsure(shown) == pytest.approx(means.std(), rel=0.05)
