"""The built-in data set: small drawn landscapes seen from above, made on first use.

Regions of five textures with warped borders, crossed by thin paths, strewn with clutter, in changing light.
A class is told by its pattern; its colour only hints at it. Image `i` depends on `i` alone, so every run has
the same pictures.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.common.user_cache import user_cache

VERSION = 1
SIZE = 96
"""Side of an image in pixels."""
PARTS = {"labeled": 8, "unlabeled": 400, "val": 100, "test": 200}

CLASS_NAMES = ("field", "meadow", "orchard", "town", "water", "path")
PALETTE = np.array(
    [(226, 190, 92), (146, 196, 88), (52, 128, 72), (206, 102, 84), (78, 146, 204), (244, 238, 222)], np.uint8
)
PATH = CLASS_NAMES.index("path")

# The difficulty of the task.
REGIONS = (3, 5)  # regions in an image
PERIOD = (4.5, 8.0)  # of a texture, in pixels
TEXTURE_CONTRAST = (0.22, 0.32)  # amplitude of a texture
COLOR_SPREAD = 0.05  # deviation of a region's colour from the typical one
LIGHT = (0.8, 1.2)  # gain of the whole image
GRADIENT = 0.2  # change of the light from the middle to the border
CAST = 0.05  # change of a single colour channel
SHADOWS = 2  # at most, in an image
SPECKS = 10  # at most, in an image
NOISE = 0.02  # of the sensor

COLORS = np.array(
    [
        (0.64, 0.55, 0.31),
        (0.45, 0.56, 0.30),
        (0.33, 0.46, 0.28),
        (0.60, 0.41, 0.35),
        (0.34, 0.48, 0.57),
        (0.97, 0.94, 0.85),
    ],
    np.float32,
)
_YY, _XX = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def builtin_root(root: str | None) -> Path:
    """The folder of the built-in data set: `root`, or a place in the user's cache."""
    if root is not None:
        return Path(root)
    return user_cache() / f"builtin-v{VERSION}"


def ensure_builtin(root: str | None = None) -> Path:
    """Draw the data set unless it is there, and return its folder.

    It is drawn beside its place and renamed, so an interrupted run leaves nothing that looks complete, and
    two processes may do it at once: the first one to finish wins.
    """
    target = builtin_root(root)
    if (target / "classes.txt").is_file():
        return target
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"data.root: expected an empty folder or the built-in data set, got other files in {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise UserError(f"data.root: cannot make the built-in data set at {target}: {error.strerror}") from error
    try:
        _write(beside)
        beside.chmod(0o755)
        os.rename(beside, target)
    except OSError as error:
        if not (target / "classes.txt").is_file():
            raise UserError(f"data.root: cannot write the built-in data set to {target}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _write(folder: Path) -> None:
    """Write images, palette masks, lists and class names as an ordinary folder data set."""
    for name in ("images", "masks", "splits"):
        (folder / name).mkdir()
    lists = {}
    start = 0
    for part, count in PARTS.items():
        lists[part] = [f"images/{i:04d}.png masks/{i:04d}.png\n" for i in range(start, start + count)]
        start += count
    for index in range(start):
        image, mask = draw(index)
        # Stored, not deflated: noise hardly shrinks, and is read faster so.
        Image.fromarray(image).save(folder / f"images/{index:04d}.png", compress_level=0)
        palette_image = Image.fromarray(mask)
        palette_image.putpalette(PALETTE.tobytes())
        palette_image.save(folder / f"masks/{index:04d}.png")
    lists["train"] = lists["labeled"] + lists["unlabeled"]
    for part, lines in lists.items():
        (folder / "splits" / f"{part}.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASS_NAMES))


def draw(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image `index`: uint8 [SIZE, SIZE, 3] RGB, and its mask, uint8 [SIZE, SIZE] of class indices."""
    rng = np.random.Generator(np.random.Philox(key=index))
    region, classes = _regions(rng)
    image = _colors(rng, classes)[region] * (1 + _textures(rng, region, classes))[..., None]
    mask = classes[region].astype(np.uint8)
    alpha = _paths(rng)
    path_color = COLORS[PATH] * (1 + 0.08 * _smooth_noise(rng, 6)[..., None])
    image += alpha[..., None] * (path_color - image)
    mask[alpha > 0.5] = PATH
    image = _light(rng, _clutter(rng, image))
    image += rng.standard_normal(image.shape, np.float32) * NOISE
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8), mask


def _regions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi cells with warped borders: the cell of every pixel, and the class of every cell."""
    count = int(rng.integers(REGIONS[0], REGIONS[1] + 1))
    centers = rng.random((count, 2), np.float32) * SIZE
    warp = SIZE / 12
    y = _YY + warp * _smooth_noise(rng, 5)
    x = _XX + warp * _smooth_noise(rng, 5)
    distance = (y[..., None] - centers[:, 0]) ** 2 + (x[..., None] - centers[:, 1]) ** 2
    # Every class in turn, so that an image holds several and none is rare.
    classes = np.concatenate([rng.permutation(PATH) for _ in range(-(-count // PATH))])[:count]
    return distance.argmin(-1), classes


def _color(rng: np.random.Generator, label: int) -> np.ndarray:
    rng.random()  # drawn for nothing since VERSION 1: without it every picture would be another
    return COLORS[label] + COLOR_SPREAD * rng.standard_normal(3, np.float32)


def _colors(rng: np.random.Generator, classes: np.ndarray) -> np.ndarray:
    return np.stack([_color(rng, int(label)) for label in classes])


def _textures(rng: np.random.Generator, region: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Relative brightness [SIZE, SIZE] of each region's pattern, turned and scaled at random."""
    count = len(classes)
    angle = rng.random(count, np.float32) * np.pi
    period = rng.uniform(*PERIOD, count).astype(np.float32)
    amplitude = rng.uniform(*TEXTURE_CONTRAST, count).astype(np.float32)[region]
    sin, cos = (np.sin(angle) / period)[region], (np.cos(angle) / period)[region]
    u = 2 * np.pi * (_XX * cos + _YY * sin)
    v = 2 * np.pi * (_YY * cos - _XX * sin)
    grain = _smooth_noise(rng, SIZE // 3)
    bend = 2.5 * _smooth_noise(rng, 7)
    # One pattern a class, in the order of CLASS_NAMES: furrows, grain, dots, roofs, waves.
    pattern = np.choose(
        classes[region],
        [
            np.sin(u),
            grain,
            -2.2 * np.exp(1.8 * (np.cos(u) + np.cos(v) - 2)) + 0.4,
            np.tanh(3 * np.sin(u) * np.sin(v)),
            0.7 * np.sin(0.6 * u + bend),
        ],
    )
    return amplitude * pattern


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Noise [SIZE, SIZE] of mean 0 and deviation about 1 with `cells` bumps along a side."""
    coarse = rng.standard_normal((cells, cells), np.float32)
    return 1.3 * cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _paths(rng: np.random.Generator) -> np.ndarray:
    """Coverage [SIZE, SIZE] in [0, 1] of one or two winding paths with branches, 3 to 5 pixels wide."""
    canvas = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    for _ in range(int(rng.integers(1, 3))):
        start = rng.random(2) * SIZE
        side = int(rng.integers(4))
        start[side % 2] = -2 if side < 2 else SIZE + 2
        heading = np.arctan2(*(rng.uniform(0.3, 0.7, 2) * SIZE - start)[::-1])
        trunk = _walk(rng, start, heading, SIZE + 40)
        _stroke(rng, canvas, trunk)
        for _ in range(int(rng.integers(0, 3))):
            fork = int(rng.integers(len(trunk) // 5, len(trunk) * 3 // 5))
            turn = rng.choice((-1, 1)) * rng.uniform(0.6, 1.2)
            _stroke(rng, canvas, _walk(rng, trunk[fork], heading + turn, int(rng.integers(15, 50))))
    return cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _walk(rng: np.random.Generator, start: np.ndarray, heading: float, length: int) -> np.ndarray:
    """Points [n, 2] of a smoothly bending line, two pixels apart."""
    steps = length // 2
    bends = np.cumsum(np.cumsum(rng.normal(0, 0.02, steps)))
    headings = heading + 0.9 * np.tanh(bends)
    return start + 2 * np.cumsum(np.stack([np.cos(headings), np.sin(headings)], -1), 0)


def _stroke(rng: np.random.Generator, canvas: np.ndarray, points: np.ndarray) -> None:
    """Draw a line on the canvas, which has twice the size of the image."""
    fixed_point = np.round(points * 2 * 16).astype(np.int32)
    cv2.polylines(canvas, [fixed_point], False, 255, int(rng.integers(4, 6)), cv2.LINE_AA, 4)


def _clutter(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Soft shadows and small specks; the class below them stays."""
    for _ in range(int(rng.integers(SHADOWS + 1))):
        cy, cx = rng.random(2) * SIZE
        ry, rx = rng.uniform(6, 16, 2)
        bump = np.exp(-((((_YY - cy) / ry) ** 2 + ((_XX - cx) / rx) ** 2) ** 2))
        image = image * (1 - rng.uniform(0.2, 0.45) * bump.astype(np.float32))[..., None]
    cover = np.zeros((SIZE, SIZE), np.uint8)
    colors = np.zeros((SIZE, SIZE, 3), np.float32)
    for _ in range(int(rng.integers(SPECKS + 1))):
        center = (rng.random(2) * SIZE * 16).astype(int).tolist()
        radius = rng.uniform(0.6, 1.7)
        color = (rng.uniform(0.15, 0.95) + 0.1 * rng.standard_normal(3)).tolist()
        cv2.circle(cover, center, int(radius * 16), 255, -1, cv2.LINE_AA, 4)
        cv2.circle(colors, center, int((radius + 2) * 16), color, -1, cv2.LINE_8, 4)
    return image + (cover / np.float32(255))[..., None] * (colors - image)


def _light(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Gain, a gradient across the image and a colour cast."""
    angle = rng.random() * 2 * np.pi
    ramp = (np.cos(angle) * _XX + np.sin(angle) * _YY) / (SIZE / 2) - (np.cos(angle) + np.sin(angle))
    gain = rng.uniform(*LIGHT) * (1 + rng.uniform(0, GRADIENT) * ramp)
    cast = 1 + rng.uniform(-CAST, CAST, 3)
    return image * gain[..., None].astype(np.float32) * cast.astype(np.float32)
