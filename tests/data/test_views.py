"""Geometry and colours of the training views."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskmatch.data.loading.sampling import Sample
from maskmatch.data.loading.views import crop_image, crop_mask, plan, strong_view, strong_view_on_device

CROP = (24, 32)


def sample(**changes: object) -> Sample:
    values = {
        "id": 0, "epoch": 0, "scale": 1.0, "crop_y": 0.0, "crop_x": 0.0, "flip": False,
        "jitter": (), "grayscale": False, "blur": 0.0, "seed": 0,
    }  # fmt: skip
    return Sample(**(values | changes))  # type: ignore[arg-type]


SAMPLES = st.builds(
    sample,
    scale=st.floats(0.3, 2.5),
    crop_y=st.floats(0, 1),
    crop_x=st.floats(0, 1),
    flip=st.booleans(),
)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def window(view: np.ndarray, drawn: Sample, crop: tuple[int, int] = CROP) -> tuple[np.ndarray, tuple[int, int]]:
    """Crop, flip and pad a whole resized image, by the definition."""
    height, width = (min(size, limit) for size, limit in zip(view.shape, crop, strict=False))
    y = min(int(drawn.crop_y * (view.shape[0] - height + 1)), view.shape[0] - height)
    x = min(int(drawn.crop_x * (view.shape[1] - width + 1)), view.shape[1] - width)
    cut = view[y : y + height, x : x + width]
    return cut[:, ::-1] if drawn.flip else cut, (height, width)


@given(st.integers(1, 70), st.integers(1, 70), SAMPLES)
def test_image_equals_the_crop_of_the_whole_resized_image(height: int, width: int, drawn: Sample) -> None:
    image = noise(height, width)
    size = (max(1, round(width * drawn.scale)), max(1, round(height * drawn.scale)))
    whole = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    expected, (rows, columns) = window(whole, drawn)
    out = np.full((*CROP, 3), 77, np.uint8)
    geometry = plan(height, width, drawn, CROP)
    crop_image(image, geometry, out)
    assert geometry.size == (rows, columns)
    # The box is kept in 32-bit floats; on noise that moved a value by 2 at the most.
    assert np.abs(out[:rows, :columns].astype(int) - expected).max() <= 3
    assert not out[rows:].any()
    assert not out[:, columns:].any()


@given(st.floats(0.3, 1.5), st.floats(0, 0.999), st.floats(0, 0.999), st.booleans())
def test_a_crop_in_the_middle_sees_its_surroundings(scale: float, crop_y: float, crop_x: float, flip: bool) -> None:
    """Only a part of a large image is resized; at the part's border nothing shows that."""
    image = noise(150, 190)
    drawn = sample(scale=scale, crop_y=crop_y, crop_x=crop_x, flip=flip)
    crop = (21, 24)
    whole = np.asarray(
        Image.fromarray(image).resize((round(190 * scale), round(150 * scale)), Image.Resampling.BILINEAR)
    )
    expected, _ = window(whole, drawn, crop)
    out = np.zeros((*crop, 3), np.uint8)
    crop_image(image, plan(150, 190, drawn, crop), out)
    assert np.abs(out.astype(int) - expected).max() <= 2


@given(st.integers(1, 70), st.integers(1, 70), SAMPLES)
def test_mask_equals_the_crop_of_the_whole_resized_mask(height: int, width: int, drawn: Sample) -> None:
    mask = noise(height, width, 1)[..., 0]
    rows, columns = (
        [math.floor(Fraction(2 * i + 1, 2) * Fraction(length, size)) for i in range(size)]
        for length, size in ((n, max(1, round(n * drawn.scale))) for n in (height, width))
    )
    expected, (height, width) = window(mask[rows][:, columns], drawn)
    out = np.full(CROP, 77, np.uint8)
    crop_mask(mask, plan(*mask.shape, drawn, CROP), out)
    np.testing.assert_array_equal(out[:height, :width], expected)
    assert (out[height:] == 255).all()
    assert (out[:, width:] == 255).all()


@given(SAMPLES)
def test_mask_stays_on_its_image(drawn: Sample) -> None:
    """An image that shows its mask, two wide stripes, still does after any resize, crop and flip."""
    mask = np.zeros((60, 80), np.uint8)
    mask[20:, 50:] = 200
    geometry = plan(60, 80, drawn, CROP)
    image_view, mask_view = np.zeros((*CROP, 3), np.uint8), np.zeros(CROP, np.uint8)
    crop_image(np.repeat(mask[..., None], 3, 2), geometry, image_view)
    crop_mask(mask, geometry, mask_view)
    rows, columns = geometry.size
    agree = (image_view[:rows, :columns, 0] > 100) == (mask_view[:rows, :columns] > 100)
    assert agree.mean() > 0.9
    if drawn.scale == 1:
        assert agree.all()


def test_without_resize_and_flip_pixels_are_copied() -> None:
    image = noise(40, 50)
    out = np.zeros((*CROP, 3), np.uint8)
    crop_image(image, plan(40, 50, sample(crop_y=0.999, crop_x=0.999), CROP), out)
    np.testing.assert_array_equal(out, image[-CROP[0] :, -CROP[1] :])


JITTERS = [("brightness", 0.6), ("brightness", 1.4), ("contrast", 0.6), ("contrast", 1.4),
           ("saturation", 0.5), ("saturation", 1.5), ("hue", -0.1), ("hue", 0.05)]  # fmt: skip


def smooth() -> np.ndarray:
    return np.array(Image.fromarray(noise(6, 8)).resize((80, 60), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("name", "factor"), JITTERS)
def test_jitter_is_that_of_torchvision(name: str, factor: float) -> None:
    drawn = sample(jitter=((name, factor),))
    image = smooth()
    ours = strong_view(image, drawn).astype(int)
    theirs = strong_view_on_device(torch.from_numpy(image), drawn).numpy().astype(int)
    difference = np.abs(ours - theirs)
    # torchvision rounds down, OpenCV to the nearest; hue goes through 8-bit HSV here, as in Pillow.
    assert difference.mean() < (3 if name == "hue" else 1)
    assert np.abs(ours - image).mean() > 5


def test_grayscale_blur_and_order_are_those_of_torchvision() -> None:
    image = smooth()
    jitter = (("hue", 0.04), ("contrast", 1.3), ("brightness", 0.8), ("saturation", 1.2))
    for drawn in (
        sample(grayscale=True),
        sample(blur=0.4),
        sample(blur=2.0),
        sample(jitter=jitter, blur=1.0),
        sample(jitter=jitter[::-1], grayscale=True),
    ):
        ours = strong_view(image, drawn).astype(int)
        theirs = strong_view_on_device(torch.from_numpy(image), drawn).numpy().astype(int)
        assert np.abs(ours - theirs).mean() < 2.5
    unchanged = sample(jitter=(("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0)))
    np.testing.assert_array_equal(strong_view(image, unchanged), image)
    np.testing.assert_array_equal(strong_view(image, sample()), image)
