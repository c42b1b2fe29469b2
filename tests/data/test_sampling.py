"""The order of the images and their random parameters."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskmatch.config import DataConfig
from maskmatch.data.loading.sampling import LABELED, UNLABELED, Sample, draw_sample, epoch_order, samples_of_step

CONFIG = DataConfig(scale_range=(0.5, 2.0), grayscale=0.2)
SEEDS = st.integers(0, 2**63)
LENGTHS = st.integers(1, 40)


def sequence(steps: int, batch_size: int, length: int, seed: int = 0, stream: int = UNLABELED) -> list[Sample]:
    return [
        sample
        for step in range(steps)
        for sample in samples_of_step(
            step, global_batch=batch_size, length=length, seed=seed, stream=stream, config=CONFIG
        )
    ]


@given(LENGTHS, st.integers(1, 9), SEEDS, st.sampled_from([LABELED, UNLABELED]))
def test_each_epoch_is_a_permutation(length: int, batch_size: int, seed: int, stream: int) -> None:
    samples = sequence(-(-3 * length // batch_size), batch_size, length, seed, stream)
    for epoch in range(3):
        shown = samples[epoch * length : (epoch + 1) * length]
        assert sorted(sample.id for sample in shown) == list(range(length))
        assert {sample.epoch for sample in shown} == {epoch}


@given(LENGTHS, SEEDS)
def test_parameters_do_not_depend_on_the_batch_size(length: int, seed: int) -> None:
    assert sequence(12, 2, length, seed) == sequence(4, 6, length, seed)


@given(st.integers(1, 12), st.integers(0, 5), LENGTHS, SEEDS)
def test_processes_together_show_the_global_batch(world_size: int, step: int, length: int, seed: int) -> None:
    """A global batch of 12, whatever the number of processes and however badly it fits the list."""
    options: dict = {"length": length, "seed": seed, "stream": UNLABELED, "config": CONFIG}
    shown = [
        sample
        for rank in range(world_size)
        for sample in samples_of_step(step, global_batch=12, rank=rank, world_size=world_size, **options)
    ]
    assert shown == samples_of_step(step, global_batch=12, **options)


@given(st.integers(2, 9), st.integers(1, 5), SEEDS)
def test_cutmix_pairs_are_two_images(length: int, half_batch: int, seed: int) -> None:
    samples = sequence(12, 2 * half_batch, length, seed)
    assert all(a.id != b.id for a, b in zip(samples[::2], samples[1::2], strict=True))


def test_streams_seeds_and_epochs_are_independent() -> None:
    orders = [
        [sample.id for sample in sequence(2, 50, 50, seed, stream)]
        for seed, stream in ((0, LABELED), (0, UNLABELED), (1, LABELED), (1, UNLABELED))
    ]
    epochs = [tuple(order[start : start + 50]) for order in orders for start in (0, 50)]
    assert len(set(epochs)) == 8
    samples = [sample for seed in (0, 1) for s in (LABELED, UNLABELED) for sample in sequence(2, 50, 50, seed, s)]
    assert len({sample.seed for sample in samples}) == len({sample.scale for sample in samples}) == 400


def test_parameters_follow_their_distributions() -> None:
    samples = [draw_sample(i % 100, i // 100, seed=0, stream=1, config=CONFIG) for i in range(4000)]
    scales = np.array([sample.scale for sample in samples])
    assert 0.5 <= scales.min() < 0.51
    assert 1.99 < scales.max() <= 2
    assert abs(scales.mean() - 1.25) < 0.03
    for name, share in {"flip": CONFIG.flip, "grayscale": CONFIG.grayscale}.items():
        assert abs(np.mean([getattr(sample, name) for sample in samples]) - share) < 0.03, name
    assert abs(np.mean([bool(sample.jitter) for sample in samples]) - CONFIG.jitter) < 0.03
    sigmas = np.array([sample.blur for sample in samples if sample.blur])
    assert abs(len(sigmas) / len(samples) - CONFIG.blur) < 0.03
    assert sigmas.min() >= 0.1
    assert sigmas.max() <= 2
    assert abs(sigmas.mean() - 1.05) < 0.05
    jittered = [sample.jitter for sample in samples if sample.jitter]
    orders = {tuple(name for name, _ in jitter) for jitter in jittered}
    assert len(orders) == 24
    hues = np.array([dict(jitter)["hue"] for jitter in jittered])
    contrasts = np.array([dict(jitter)["contrast"] for jitter in jittered])
    _, contrast, _, hue = CONFIG.jitter_strengths
    assert abs(np.abs(hues).max() - hue) < 0.002
    assert abs(contrasts.min() - (1 - contrast)) < 0.01
    assert abs(contrasts.max() - 1 - contrast) < 0.01
    assert abs(np.corrcoef(hues, contrasts)[0, 1]) < 0.05
    assert all(0 <= sample.seed < 2**63 for sample in samples)


def test_factors_are_not_negative() -> None:
    """torchvision refuses those that are."""
    strong = dataclasses.replace(CONFIG, jitter=1.0, jitter_strengths=(3.0, 3.0, 3.0, 0.1))
    samples = [dict(draw_sample(i, 0, seed=0, stream=1, config=strong).jitter) for i in range(200)]
    for name in ("brightness", "contrast", "saturation"):
        assert 0 == min(factors[name] for factors in samples) < 3 < max(factors[name] for factors in samples) <= 4


def test_draws_are_those_of_a_generator_of_their_own() -> None:
    """One for each purpose, epoch and sample, which no other draw has moved on."""
    expected = np.random.Generator(np.random.Philox(key=np.array([7, 1], np.uint64), counter=[0, 0, 3, 0]))
    np.testing.assert_array_equal(epoch_order(7, 1, 3, 40), expected.permutation(40))
    sample = draw_sample(5, 2, seed=7, stream=1, config=CONFIG)
    own = np.random.Generator(np.random.Philox(key=np.array([7, 1], np.uint64), counter=[0, 1, 2, 5]))
    assert sample.crop_y == own.random(16)[1]
    assert sample.seed == own.integers(2**63 - 1)


def test_one_option_does_not_change_the_draws_of_another() -> None:
    plain = dataclasses.replace(CONFIG, flip=0.0, jitter=0.0, grayscale=1.0, blur=0.0)
    for index in range(20):
        a = draw_sample(index, 0, seed=0, stream=1, config=CONFIG)
        b = draw_sample(index, 0, seed=0, stream=1, config=plain)
        assert (a.scale, a.crop_y, a.crop_x, a.seed) == (b.scale, b.crop_y, b.crop_x, b.seed)
        assert b.grayscale
        assert not (b.flip)
        assert not (b.jitter)
        assert not (b.blur)
