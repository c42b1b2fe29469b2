"""Masks of unlabelled images: there to measure pseudo-labels with, and for nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskmatch.data import load_dataset, make_loader


def first_batch(config):
    """With its true classes and its images."""
    dataset = load_dataset(config, supervised_only=False)
    with open_loader(dataset, config) as loader:
        batch = next(loader)
        return batch, batch.truth, loader.images(0, labeled=False)


def open_loader(dataset, config, measured=lambda step: True):
    options = {"global_batch": 7, "seed": 0, "device": torch.device("cpu"), "supervised_only": False}
    return make_loader(dataset, config, **options, measured=measured)


def test_masks_are_set_apart(folder):
    dataset = load_dataset(folder, supervised_only=False)
    assert all(pair.mask is None for pair in dataset.unlabeled)
    assert len(dataset.truth) == len(dataset.unlabeled) == 7
    assert not {pair.image for pair in dataset.labeled} & set(dataset.truth)


def test_it_is_cut_out_as_the_image_is(folder):
    """Whole images in their own size, unturned: the mask must come back as it is in the file, in the image's place."""
    config = dataclasses.replace(folder, crop_size=(200, 200), scale_range=(1.0, 1.0), flip=0.0, loader="torch")
    batch, truths, images = first_batch(config)
    for truth, weak, valid, image in zip(truths, batch.weak, batch.valid, images, strict=True):
        pixels = np.asarray(Image.open(image).convert("RGB"))
        mask = np.asarray(Image.open(Path(config.root) / "masks" / f"{image.stem}.png"))
        height, width = mask.shape
        assert np.array_equal(weak.permute(1, 2, 0)[:height, :width].numpy(), pixels)
        assert np.array_equal(truth[:height, :width].numpy(), mask)
        assert (truth[~valid] == 255).all()


def test_a_mask_that_is_missing_or_broken_counts_nowhere(folder):
    truth = load_dataset(folder, supervised_only=False).truth
    gone, broken, *whole = truth
    truth[gone].unlink()
    truth[broken].write_bytes(b"no mask")
    _, truths, images = first_batch(dataclasses.replace(folder, loader="torch"))
    for image, of_image in zip(images, truths, strict=True):
        assert (of_image != 255).any() == (image in whole)


def test_without_masks_there_is_none(folder):
    dataset = dataclasses.replace(load_dataset(folder, supervised_only=False), truth={})
    config = dataclasses.replace(folder, loader="torch")
    with open_loader(dataset, config) as loader:
        assert next(loader).truth is None


def test_it_comes_with_the_steps_that_are_measured_alone(folder):
    config = dataclasses.replace(folder, loader="torch")
    dataset = load_dataset(config, supervised_only=False)
    with open_loader(dataset, config, lambda step: step % 3 == 1) as loader:
        assert [next(loader).truth is not None for _ in range(6)] == [False, True, False] * 2
    with open_loader(dataset, config) as loader, open_loader(dataset, config, lambda step: False) as plain:
        for _ in range(2):
            with_truth, without = next(loader), next(plain)
            assert all(torch.equal(one, other) for one, other in zip(with_truth[:6], without[:6], strict=True))
