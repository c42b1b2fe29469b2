"""The layouts of data sets on disk. A new one is one function from a DataConfig to a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskmatch.batch import IGNORE_INDEX
from maskmatch.config import DataConfig
from maskmatch.data import builtin
from maskmatch.data.dataset import Dataset, Pair, ReadLine, plain_line, read_list
from maskmatch.data.files import read_palette
from maskmatch.errors import UserError

VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]

# labelId, name and colour of the 19 classes that are trained and evaluated, in the order of their trainId.
CITYSCAPES_CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CITYSCAPES_LAST_ID = 33

PARTS = ("labeled", "unlabeled", "val", "test")


def load_dataset(config: DataConfig, *, supervised_only: bool) -> Dataset:
    """Find the lists of `config` and its classes. Images are not checked; `check_dataset` does that.

    With `supervised_only` the unlabelled list is not read. Raises UserError for a missing root, a missing or
    empty list and a wrong number of classes.
    """
    return _LAYOUTS[config.name](config, supervised_only)


def _builtin(config: DataConfig, supervised_only: bool) -> Dataset:
    root = builtin.ensure_builtin(config.root)
    return Dataset(
        name=config.name,
        root=root,
        class_names=_class_names(config, builtin.CLASS_NAMES),
        palette=builtin.PALETTE,
        mask_table=_identity(),
        **_parts(config, root, supervised_only, defaults={part: f"splits/{part}.txt" for part in PARTS}),
    )


def _folder(config: DataConfig, supervised_only: bool) -> Dataset:
    root = _root(config)
    names = _class_names(config, _classes_file(root / "classes.txt") or _numbered(config, root))
    parts = _parts(config, root, supervised_only)
    colors = read_palette(parts["labeled"][0].mask)
    return Dataset(
        name=config.name,
        root=root,
        class_names=names,
        palette=colors[: len(names)] if len(colors) >= len(names) else voc_palette(len(names)),
        mask_table=_identity(),
        **parts,
    )


def _voc(config: DataConfig, supervised_only: bool) -> Dataset:
    root = _root(config)
    return Dataset(
        name=config.name,
        root=root,
        class_names=_class_names(config, VOC_CLASSES),
        palette=voc_palette(len(VOC_CLASSES)),
        mask_table=_identity(),
        **_parts(config, root, supervised_only, {"val": "ImageSets/Segmentation/val.txt"}, read_line=_voc_line),
    )


def _voc_line(fields: list[str], root: Path) -> Pair | None:
    """`image mask`, `image`, or the bare id of VOC's own lists."""
    if len(fields) > 1 or Path(fields[0]).suffix:
        return plain_line(fields, root)
    mask, augmented = (root / folder / f"{fields[0]}.png" for folder in ("SegmentationClass", "SegmentationClassAug"))
    only_augmented = augmented.is_file() and not mask.is_file()
    return Pair(root / "JPEGImages" / f"{fields[0]}.jpg", augmented if only_augmented else mask)


def _cityscapes(config: DataConfig, supervised_only: bool) -> Dataset:
    root = _root(config)
    # Stock downloads have labelIds alone, converted ones perhaps trainIds alone: one kind serves all.
    by_label_id = _first(root, "gtFine/*/*/*_gtFine_labelIds.png") is not None
    kind = "labelIds" if by_label_id else "labelTrainIds"

    def read_line(fields: list[str], root: Path) -> Pair | None:
        pair = plain_line(fields, root)
        if pair is None:
            return None
        return Pair(pair.image, _cityscapes_mask(pair, root, kind))

    parts = _parts(config, root, supervised_only, required_val=False, read_line=read_line)
    if config.val is None:
        images = sorted((root / "leftImg8bit/val").glob("*/*_leftImg8bit.png"))
        parts["val"] = tuple(Pair(image, _cityscapes_mask(Pair(image, None), root, kind)) for image in images)
        if not images:
            raise UserError(f"data.val: expected images in leftImg8bit/val, found none in {root}")
    table = _identity()
    if by_label_id:
        table[: CITYSCAPES_LAST_ID + 1] = IGNORE_INDEX
        for train_id, (label_id, _, _) in enumerate(CITYSCAPES_CLASSES):
            table[label_id] = train_id
    return Dataset(
        name=config.name,
        root=root,
        class_names=_class_names(config, [name for _, name, _ in CITYSCAPES_CLASSES]),
        palette=np.array([color for _, _, color in CITYSCAPES_CLASSES], np.uint8),
        mask_table=table,
        **parts,
    )


def _cityscapes_mask(pair: Pair, root: Path, kind: str) -> Path | None:
    """The mask in the kind of ids that is there: of the listed mask, else of the image by its name."""
    if pair.mask is not None:
        stem = pair.mask.name.partition("_gtFine_label")[0]
        return pair.mask.with_name(f"{stem}_gtFine_{kind}.png") if stem != pair.mask.name else pair.mask
    stem, found, _ = pair.image.name.partition("_leftImg8bit")
    if not found:
        return None
    city, split = pair.image.parent.name, pair.image.parent.parent.name
    return root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png"


_LAYOUTS = {"builtin": _builtin, "folder": _folder, "voc": _voc, "cityscapes": _cityscapes}


def _parts(
    config: DataConfig,
    root: Path,
    supervised_only: bool,
    defaults: dict[str, str] | None = None,
    *,
    required_val: bool = True,
    read_line: ReadLine = plain_line,
) -> dict[str, tuple[Pair, ...]]:
    """The four parts by the lists of `config`, else of the layout's `defaults`."""
    optional = {"test"} | ({"val"} if not required_val else set())
    parts: dict[str, tuple[Pair, ...]] = {}
    for part in PARTS:
        name = getattr(config, part) or (defaults or {}).get(part)
        if part == "unlabeled" and supervised_only:
            parts[part] = ()
        elif name is not None:
            parts[part] = _read_part(part, name, root, read_line)
        elif part in optional:
            parts[part] = ()
        else:
            raise UserError(f"data.{part}: expected a list file for {config.name}, got none")
    return parts


def _read_part(part: str, name: str, root: Path, read_line: ReadLine) -> tuple[Pair, ...]:
    for path in (Path(name), root / name):
        if path.is_file():
            break
    else:
        raise UserError(f"data.{part}: expected a list file, found none in the current folder nor in {root}: {name}")
    pairs = read_list(path, root, labeled=part != "unlabeled", read_line=read_line)
    if not pairs:
        raise UserError(f"data.{part}: expected at least one image, got an empty list: {path}")
    return pairs


def _root(config: DataConfig) -> Path:
    if config.root is None:
        raise UserError(f"data.root: expected the folder of the {config.name} data set, got none")
    root = Path(config.root)
    if not root.is_dir():
        raise UserError(f"data.root: expected a folder, found none: {root}")
    return root


def _class_names(config: DataConfig, known: Sequence[str]) -> tuple[str, ...]:
    """The user's names, else the layout's; both must agree in number."""
    count = len(known)
    if config.num_classes not in (None, count):
        raise UserError(f"data.num_classes: expected {count} for this data set, got {config.num_classes}")
    if config.class_names is not None and len(config.class_names) != count:
        raise UserError(f"data.class_names: expected {count} names, got {len(config.class_names)}")
    if not 1 <= count <= IGNORE_INDEX:
        raise UserError(f"data.num_classes: expected 1 to {IGNORE_INDEX}, got {count}")
    return tuple(config.class_names or known)


def _classes_file(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _numbered(config: DataConfig, root: Path) -> list[str]:
    """Names where no file gives them."""
    if config.num_classes is None and config.class_names is None:
        raise UserError(f"data.num_classes: expected the number of classes, got none, and no classes.txt in {root}")
    count = config.num_classes if config.num_classes is not None else len(config.class_names or ())
    return [str(index) for index in range(count)]


def _first(folder: Path, pattern: str) -> Path | None:
    return next(folder.glob(pattern), None)


def _identity() -> np.ndarray:
    return np.arange(256, dtype=np.uint8)


def voc_palette(count: int) -> np.ndarray:
    """The first `count` colours of PASCAL VOC's colour map, uint8 [count, 3].

    Bit 7 - j of a colour channel is bit 3 j + channel of the class index.
    """
    index = np.arange(count)[:, None, None]
    j = np.arange(8)[None, :, None]
    bits = (index >> (3 * j + np.arange(3))) & 1
    return (bits << (7 - j)).sum(1).astype(np.uint8)
