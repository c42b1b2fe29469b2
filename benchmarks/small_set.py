"""A small data set of photographs from a public one, for a computer without a GPU.

    python benchmarks/small_set.py --data.name voc --data.root VOCdevkit/VOC2012 --output voc_animals --labeled 42 \\
        --data.labeled ImageSets/Segmentation/train.txt --short_side 144 \\
        --classes '[background,cat,cow,dog,horse,sheep,person,chair,sofa]'
    python benchmarks/small_set.py --data.name cityscapes --data.root CITYSCAPES --output cityscapes_small \\
        --data.labeled train.txt --labeled 75 --short_side 128

Lists and layouts are those of `python -m maskmatch.train`. Images are shrunk to --short_side. With --classes all others
become 255, and pictures go that show none of these but the first, or that others fill to a quarter. --labeled images
stay labelled, the rest of the training images are the unlabelled ones, whose masks the upper bound alone sees; without
it the lists stay as they are. A set without a test list has the second half of its val list for one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # maskmatch of this checkout
from maskmatch.commands.command_line import run
from maskmatch.commands.split import make_split
from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.config import Config, DataConfig, validate
from maskmatch.data import Dataset, Pair, load_dataset, read_image, read_pair
from maskmatch.data.dataset import PARTS
from maskmatch.data.listing.lists import format_list
from maskmatch.run_files.config_file import config_parser, parse

MOST_OF_OTHERS = 0.25  # share of a picture that dropped classes may have
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Small:
    """Where the small set is written, and how its images become small."""

    folder: Path
    short_side: int
    table: np.ndarray  # uint8 [256], class of the source -> class of the small set, or IGNORE_INDEX
    chosen: bool  # whether classes were chosen, so that not every picture shows one

    def add(self, image: Path, mask: Path | None, source: Dataset) -> Pair | None:
        """Write an image and its mask, and say where; None where the picture is left out."""
        target = None
        if mask is None:
            pixels = read_image(image)
        else:
            pixels, classes = read_pair(image, mask, source.mask_table)
            target = self.table[classes]
            dropped = (target == IGNORE_INDEX) & (classes != IGNORE_INDEX)
            shown = (target > 0) & (target != IGNORE_INDEX)
            if dropped.mean() >= MOST_OF_OTHERS or (self.chosen and not shown.any()):
                return None
        pair = Pair(self.folder / f"images/{image.stem}.jpg", mask and self.folder / f"masks/{image.stem}.png")
        if pair.image.exists():
            raise UserError(f"expected images of different names, got {image.stem} twice: {image}")
        _write(pair.image, self._resized(pixels, cv2.INTER_AREA))
        if pair.mask and target is not None:
            _write(pair.mask, self._resized(target, cv2.INTER_NEAREST))
        return pair

    def _resized(self, pixels: np.ndarray, interpolation: int) -> np.ndarray:
        height, width = pixels.shape[:2]
        factor = min(1.0, self.short_side / min(height, width))
        size = (round(width * factor), round(height * factor))
        return cv2.resize(pixels, size, interpolation=interpolation)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)


def main(argv: Sequence[str]) -> None:
    """Write the small set that the command line asks for."""
    parser = config_parser("small_set.py", "A small data set of photographs from a public one.")
    parser.add_argument("--output", type=str, required=True, help="New folder of the small set.")
    parser.add_argument("--short_side", type=int, default=144, help="Height or width in pixels, the smaller of both.")
    parser.add_argument("--classes", type=list[str] | None, default=None, help="Those to keep, the background first.")
    parser.add_argument("--labeled", type=str | None, default=None, help="Images to stay labelled, such as 42 or 1/16.")
    options = parse(parser, argv)
    output, short_side, classes, labeled = (
        options.pop(name) for name in ("output", "short_side", "classes", "labeled")
    )
    folder = Path(output)
    if folder.exists():
        raise UserError(f"output: expected a new folder, as nothing is overwritten, found {folder}")
    if short_side < 1:
        raise UserError(f"short_side: expected at least 1, got {short_side}")
    config = Config(**options)
    validate(config)
    source = load_dataset(config.data, supervised_only=False, incomplete=True)
    names = classes or list(source.class_names)
    small = Small(folder, short_side, _table(source.class_names, names), chosen=bool(classes))
    parts = {part: [p for pair in pairs if (p := small.add(*pair, source))] for part, pairs in _parts(source).items()}
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    _write_lists(folder, parts)
    if labeled:
        parts |= _split(folder, labeled)
        _write_lists(folder, parts)
    print(", ".join(f"{len(pairs)} {part}" for part, pairs in parts.items()) + f" images: {folder}")


def _table(known: Sequence[str], kept: Sequence[str]) -> np.ndarray:
    if unknown := sorted(set(kept) - set(known)):
        raise UserError(f"classes: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    table = np.full(256, IGNORE_INDEX, np.uint8)
    for index, name in enumerate(kept):
        table[known.index(name)] = index
    return table


def _parts(source: Dataset) -> dict[str, list[Pair]]:
    """The source's lists with the masks of its unlabelled images, and a test list in any case."""
    parts = {part: list(getattr(source, part)) for part in PARTS}
    parts["unlabeled"] = [Pair(image, source.truth.get(image)) for image, _ in source.unlabeled]
    if not parts["test"]:
        half = (len(parts["val"]) + 1) // 2
        parts |= {"val": parts["val"][:half], "test": parts["val"][half:]}
    return parts


def _split(folder: Path, labeled: str) -> dict[str, list[Pair]]:
    """The training images anew: few labelled ones that show every class, and the rest."""
    data = DataConfig(name="folder", root=str(folder), split=str(folder / "splits"))
    whole = load_dataset(data, supervised_only=False, incomplete=True)
    parts = make_split(whole, labeled, None, "even", 0)
    parts["unlabeled"] = [Pair(image, mask or whole.truth.get(image)) for image, mask in parts["unlabeled"]]
    return parts


def _write_lists(folder: Path, parts: dict[str, list[Pair]]) -> None:
    """splits/*.txt, `train` for the upper bound: all training images with masks."""
    (folder / "splits").mkdir(exist_ok=True)
    train = [pair for part in ("labeled", "unlabeled") for pair in parts[part] if pair.mask]
    for part, pairs in {**parts, "train": train}.items():
        if pairs:
            (folder / f"splits/{part}.txt").write_text(format_list(pairs, folder), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
