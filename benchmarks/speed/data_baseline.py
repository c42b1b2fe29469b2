"""What the field's trainers load their images with: PIL, torchvision's transforms, and a DataLoader's processes.

The steps and their parameters are those of UniMatch and its kin; one strong view, and no mask for unlabelled images.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms


class FieldDataset(Dataset[Any]):
    """Images (and masks) of a list, resized, cropped, flipped, disturbed and normalised one by one."""

    def __init__(self, root: Path, stream: str, crop: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.pairs = [line.split() for line in (root / "all.txt").read_text().splitlines()]
        self.root, self.stream, self.crop = root, stream, crop
        self.normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
        self.jitter = transforms.ColorJitter(0.5, 0.5, 0.5, 0.25)
        self.grayscale = transforms.RandomGrayscale(p=0.2)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image_file, mask_file = (self.root / name for name in self.pairs[index])
        labeled = self.stream == "labeled"
        image, mask = self._weak(Image.open(image_file).convert("RGB"), Image.open(mask_file) if labeled else None)
        if mask is not None:
            return self.normalize(image), torch.from_numpy(np.array(mask)).long()
        strong = self.jitter(image) if random.random() < 0.8 else image
        strong = self.grayscale(strong)
        if random.random() < 0.5:
            strong = strong.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        return self.normalize(image), self.normalize(strong), _cutmix_box(self.crop)

    def _weak(self, image: Image.Image, mask: Image.Image | None) -> tuple[Image.Image, Image.Image | None]:
        """Resize by 0.5 to 2, pad and crop, flip."""
        scale, crop, flip = random.uniform(0.5, 2.0), self.crop, random.random() < 0.5
        width, height = round(image.width * scale), round(image.height * scale)
        left, top = random.randint(0, max(0, width - crop)), random.randint(0, max(0, height - crop))

        def cut(picture: Image.Image, resample: Image.Resampling, fill: int) -> Image.Image:
            picture = picture.resize((width, height), resample)
            border = (0, 0, max(0, crop - width), max(0, crop - height))
            picture = ImageOps.expand(picture, border=border, fill=fill).crop((left, top, left + crop, top + crop))
            return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture

        cut_mask = cut(mask, Image.Resampling.NEAREST, 255) if mask is not None else None
        return cut(image, Image.Resampling.BILINEAR, 0), cut_mask


def _cutmix_box(size: int) -> Tensor:
    """1 in a box of 2 to 40 percent of the image, every other time."""
    box = torch.zeros(size, size)
    if random.random() < 0.5:
        area, ratio = random.uniform(0.02, 0.4) * size * size, random.uniform(0.3, 1 / 0.3)
        width, height = min(size, int((area / ratio) ** 0.5)), min(size, int((area * ratio) ** 0.5))
        left, top = random.randint(0, size - width), random.randint(0, size - height)
        box[top : top + height, left : left + width] = 1
    return box


def baseline_loader(
    root: Path, stream: str, batch: int, crop: int, workers: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Iterator[Any]:
    """Endless batches of a stream."""
    dataset = FieldDataset(root, stream, crop, mean, std)
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**7)  # endless: epochs start no new processes
    return iter(DataLoader(dataset, batch, sampler=sampler, num_workers=workers, drop_last=True))
