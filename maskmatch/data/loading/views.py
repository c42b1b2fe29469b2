"""From a decoded image and a sample's parameters to its training views, on the CPU.

Image arrays are uint8 [H, W, 3] RGB, masks uint8 [H, W].
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.common.normalization import normalized
from maskmatch.data.loading.sampling import Sample


class Window(NamedTuple):
    """Resize and crop along one axis, in whole pixels."""

    length: int  # of the image
    resized: int  # of the resized image
    start: int  # of the crop in the resized image
    size: int  # of the crop, up to the end of the resized image

    @property
    def source(self) -> tuple[float, float]:
        """Start and end of the crop in the image, in pixels."""
        return self.start * self.length / self.resized, (self.start + self.size) * self.length / self.resized

    def to_image(self) -> tuple[float, float]:
        """(factor, offset) that take the index of the crop's pixel to the image's, at the pixels' centres."""
        factor = self.length / self.resized
        return factor, (self.start + 0.5) * factor - 0.5

    @property
    def reach(self) -> int:
        """How much of the image, from its start, the crop's pixels and their antialias filters see."""
        factor = self.length / self.resized
        return min(self.length, math.ceil((self.start + self.size + 1) * factor) + 1)

    @property
    def scale(self) -> float:
        """resized / length, rounded up, so that `length * scale` does not fall short of `resized`."""
        return math.nextafter(self.resized / self.length, math.inf)

    def nearest(self) -> np.ndarray:
        """The pixel of the image that lies under the centre of each pixel of the crop."""
        return (2 * np.arange(self.start, self.start + self.size) + 1) * self.length // (2 * self.resized)


class Geometry(NamedTuple):
    """Resize, crop and flip of one image."""

    rows: Window
    columns: Window
    flip: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the view without its padding."""
        return self.rows.size, self.columns.size

    @property
    def enlarges(self) -> bool:
        """Whether no side of the image shrinks."""
        return self.rows.resized >= self.rows.length and self.columns.resized >= self.columns.length


def plan(height: int, width: int, sample: Sample, crop: tuple[int, int]) -> Geometry:
    """Resize a [height, width] image by `sample.scale`, then cut out a window of at most `crop`."""
    rows = _window(height, sample.scale, sample.crop_y, crop[0])
    columns = _window(width, sample.scale, sample.crop_x, crop[1])
    return Geometry(rows, columns, sample.flip)


def _window(length: int, scale: float, position: float, crop: int) -> Window:
    resized = max(1, round(length * scale))
    size = min(crop, resized)
    return Window(length, resized, min(int(position * (resized - size + 1)), resized - size), size)


def crop_image(image: np.ndarray, geometry: Geometry, out: np.ndarray) -> None:
    """Write the weak view into `out`, uint8 [crop_h, crop_w, 3]; padding is 0.

    It equals the crop of the whole image, resized bilinearly (and with antialias where that shrinks it). Only
    what survives the crop is computed.
    """
    height, width = geometry.size
    out[height:] = 0
    out[:, width:] = 0
    view = out[:height, :width]
    if geometry.enlarges:
        _enlarge(image, geometry, view)
    else:
        shrunk = _shrink(image, geometry.rows, geometry.columns)
        view[:] = shrunk[:, ::-1] if geometry.flip else shrunk


def _enlarge(image: np.ndarray, geometry: Geometry, out: np.ndarray) -> None:
    """By OpenCV, flip included."""
    (y_factor, y_offset), (x_factor, x_offset) = geometry.rows.to_image(), geometry.columns.to_image()
    if geometry.flip:
        x_factor, x_offset = -x_factor, x_offset + x_factor * (geometry.columns.size - 1)
    matrix = np.array([[x_factor, 0, x_offset], [0, y_factor, y_offset]])
    size = (out.shape[1], out.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(image, matrix, size, dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _shrink(image: np.ndarray, rows: Window, columns: Window) -> np.ndarray:
    """By torch, whose antialias is faster than Pillow's; it can only start at the image's corner."""
    used = image[: rows.reach, : columns.reach]
    size = (rows.start + rows.size, columns.start + columns.size)
    pixels = torch.from_numpy(used).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, scale_factor=(rows.scale, columns.scale), mode="bilinear", antialias=True)
    return resized[0, :, rows.start : size[0], columns.start : size[1]].permute(1, 2, 0).numpy()


def crop_mask(mask: np.ndarray, geometry: Geometry, out: np.ndarray) -> None:
    """Write the mask of the weak view into `out`, uint8 [crop_h, crop_w]; padding is IGNORE_INDEX."""
    height, width = geometry.size
    rows, columns = geometry.rows.nearest(), geometry.columns.nearest()
    out[:] = IGNORE_INDEX
    # Rows first: they are copied whole, and only the columns of those that stay are picked one by one.
    out[:height, :width] = mask[rows].take(columns[::-1] if geometry.flip else columns, axis=1)


def strong_view(image: np.ndarray, sample: Sample) -> np.ndarray:
    """The colour-disturbed copy of a weak view (without its padding), by OpenCV."""
    for name, factor in sample.jitter:
        image = _JITTER[name](image, factor)
    if sample.grayscale:
        image = cv2.cvtColor(_gray(image), cv2.COLOR_GRAY2RGB)
    if sample.blur:
        size = _blur_size(sample.blur)
        image = cv2.GaussianBlur(image, (size, size), sample.blur, borderType=cv2.BORDER_REFLECT_101)
    return image


def strong_view_on_device(image: Tensor, sample: Sample) -> Tensor:
    """`strong_view` of a uint8 [H, W, 3] tensor where it is, by torchvision."""
    from torchvision.transforms.v2 import functional

    image = image.permute(2, 0, 1)
    for name, factor in sample.jitter:
        image = getattr(functional, f"adjust_{name}")(image, factor)
    if sample.grayscale:
        image = functional.rgb_to_grayscale(image, num_output_channels=3)
    if sample.blur:
        size = _blur_size(sample.blur)
        image = functional.gaussian_blur(image, [size, size], [sample.blur, sample.blur])
    return image.permute(1, 2, 0)


class Normalize:
    """uint8 [N, 3, H, W] images -> (image / 255 - mean) / std, float32, in channels-last memory on their device."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(f"normalize: expected mean and std of three channels, std above 0, got {mean} and {std}")
        self.mean, self.std = (torch.tensor(values, device=device) for values in (mean, std))
        self._free: defaultdict[tuple[int, ...], deque[np.ndarray]] = defaultdict(lambda: deque(maxlen=16))
        every_value = torch.arange(256, dtype=torch.uint8).expand(3, 256)[None, :, None]  # [1, 3, 1, 256]
        self.table = normalized(every_value, mean, std).permute(0, 2, 3, 1)[0].numpy()  # [1, 256, 3]

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise `images`, which are in channels-last memory."""
        if images.is_cuda:
            return normalized(images, self.mean, self.std)
        views = images.permute(0, 2, 3, 1)
        # Looked up by OpenCV: torch would start a team of threads for each of the loader's.
        found = self._empty(views.shape)
        cv2.LUT(views.flatten(0, 1).numpy(), self.table, dst=found.reshape(-1, *found.shape[2:]))
        return torch.from_numpy(found).permute(0, 3, 1, 2)

    def _empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array on the memory of one that nobody holds any more: new pages take as long as filling them."""
        free = self._free[shape]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(shape, np.float32)
        array = memory.view()
        weakref.finalize(array, free.append, memory)
        return array


def _blur_size(sigma: float) -> int:
    """Side of a Gaussian kernel that reaches three sigmas."""
    return 2 * math.ceil(3 * sigma) + 1


# The meanings are those of torchvision's ColorJitter on uint8 images.


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.convertScaleAbs(image, alpha=factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = cv2.mean(_gray(image))[0]
    return cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean)


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    gray = np.array([0.299, 0.587, 0.114], np.float32) * (1 - factor)
    return cv2.transform(image, gray + factor * np.eye(3, dtype=np.float32))


def _hue(image: np.ndarray, factor: float) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(factor * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


_JITTER = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}
