"""The layouts of data sets on disk. A new one is one function from a DataConfig to a Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data.dataset import PARTS, Dataset, Pair
from maskmatch.data.decoding import classes, mask_table
from maskmatch.data.decoding.classes import parse_palette, voc_palette
from maskmatch.data.decoding.files import read_palette
from maskmatch.data.listing import builtin
from maskmatch.data.listing.class_names import CLASSES_FILE, class_names, names_of_folder, nothing_in_common
from maskmatch.data.listing.leftovers import leftovers, polygons
from maskmatch.data.listing.lists import DRAW_POLYGONS, Find, find_lists, id_of, is_path, read_list, under
from maskmatch.data.listing.pairing import Pairing
from maskmatch.data.listing.patterns import is_pattern


def load_dataset(
    config: DataConfig,
    *,
    supervised_only: bool,
    incomplete: bool = False,
    only: Literal["val", "test"] | None = None,
) -> Dataset:
    """Find the lists of `config` and its classes. Images are not checked; `check_dataset` does that.

    Masks of unlabelled images, where the list names some, are set apart as `truth`.
    With `supervised_only` the unlabelled list is not read; `incomplete` lets the unlabelled and the validation
    list be absent; `only` one list is read, and the others need not be there.
    Raises UserError for a missing root, a missing or empty list and a wrong number of classes.
    """
    if only and getattr(config, only):
        config = replace(config, split=None)  # which may be gone
    parts = {only} if only else set(PARTS) - ({"unlabeled"} if supervised_only else set())
    optional = {"test"} | ({"unlabeled", "val"} if incomplete else set())
    return _LAYOUTS[config.layout](config, Wanted(frozenset(parts), frozenset(optional)))


class Wanted(NamedTuple):
    """Which parts are read."""

    parts: frozenset[str]
    optional: frozenset[str]  # may be absent


def _builtin(config: DataConfig, wanted: Wanted) -> Dataset:
    root = builtin.ensure_builtin(config.root)
    parts = _parts(
        config,
        root,
        wanted,
        Pairing(root, "images/*", "masks/*").find,
        defaults={part: f"splits/{part}.txt" for part in PARTS},
    )
    return _dataset(config, root, parts, builtin.CLASS_NAMES, builtin.PALETTE)


def _folder(config: DataConfig, wanted: Wanted) -> Dataset:
    root = _root(config)
    names = names_of_folder(config, root)
    class_names(config, names, CLASSES_FILE)  # refused here, before a list is read
    pairing = Pairing(root, config.images, config.masks)
    lists = find_lists(config, root)
    found = None
    if "labeled" in wanted.parts and "labeled" not in lists:
        found = _labeled_and_rest(pairing)
    parts = _parts(config, root, wanted, pairing.find, pairing=pairing, found=found)
    if found:
        listed = {pair.image for part in lists for pair in parts[part]}
        parts["labeled"] = tuple(pair for pair in parts["labeled"] if pair.image not in listed)
        if not parts["labeled"]:
            others = ", ".join(f"data.{part}" for part in lists)
            raise UserError(f"data.labeled: expected images with masks beside those of {others}, got none: {root}")
    by_pattern = [part for part in ("labeled", "val", "test") if parts[part] and _is_pattern(lists.get(part), root)]
    pairing.refuse_shared_masks(pair for part in by_pattern for pair in parts[part])
    notes = leftovers(pairing, chain.from_iterable(parts.values())) if "labeled" in by_pattern else []
    masks = (pair.mask for part in ("labeled", "val", "test") for pair in parts[part])
    colors = read_palette(next(masks, None))
    stored = _stored_numbers(config, len(names))
    palette = colors[stored] if len(colors) > max(stored) else voc_palette(len(names))
    dataset = _dataset(config, root, parts, names, palette, source=CLASSES_FILE)
    return replace(dataset, notes=(*dataset.notes, *notes))


def _stored_numbers(config: DataConfig, count: int) -> list[int]:
    """What masks store for each class, where that is a number: the entry of a palette that has the class's colour."""
    numbers = [value for value in config.mask_values or () if isinstance(value, int)]
    return numbers if len(numbers) == count else list(range(count))


def _labeled_and_rest(pairing: Pairing) -> dict[str, tuple[Pair, ...]]:
    """A folder without lists: images with a mask are labelled, the others are not."""
    pairs = [pairing.pair(image) for image in pairing.image_files]
    labeled = tuple(pair for pair in pairs if pair.mask)
    if not labeled:
        why = leftovers(pairing)
        if not pairs and any(pairing.images.match(mask) for mask in pairing.mask_files):
            why = ["data.masks matches all of data.images too, and what it matches is no image"]
        if found := polygons(pairing):
            why = [f"there are polygons in JSON, such as {found[0]}{DRAW_POLYGONS}"]
        raise UserError(
            f"data.labeled: expected a list file, or images with masks of the same names, got {len(pairs)} images in "
            f"{pairing.images.text} (data.images) and none with a mask in {pairing.masks.text} (data.masks)"
            f"{'; ' if why else ''}{'; '.join(why)}: {pairing.root}"
        )
    return {"labeled": labeled, "unlabeled": tuple(pair for pair in pairs if pair.mask is None)}


def _voc(config: DataConfig, wanted: Wanted) -> Dataset:
    root = _root(config)

    def find(name: str) -> Pair | None:
        """SBD's masks are in SegmentationClassAug, or were copied into SegmentationClass."""
        stem = id_of(name)
        image = under(root, name if is_path(name) else f"JPEGImages/{name}.jpg")
        return Pair(image, _existing(root / f"SegmentationClass{aug}/{stem}.png" for aug in ("", "Aug")))

    parts = _parts(config, root, wanted, find, defaults={"val": "ImageSets/Segmentation/val.txt"})
    return _dataset(config, root, parts, classes.VOC, voc_palette(len(classes.VOC)))


def _cityscapes(config: DataConfig, wanted: Wanted) -> Dataset:
    root = _root(config)
    # Stock downloads have labelIds alone, converted ones perhaps trainIds alone: one kind serves all.
    by_label_id = next(root.glob("gtFine/*/*/*_gtFine_labelIds.png"), None) is not None
    kind = "labelIds" if by_label_id else "labelTrainIds"

    def find(name: str) -> Pair | None:
        """An id is `city_sequence_frame`; its image and its mask may be listed as lying elsewhere."""
        frame = id_of(name).removesuffix("_leftImg8bit")
        city = frame.partition("_")[0]
        listed = [under(root, name)] if is_path(name) else []
        folders = [path.parent.name for path in listed] + ["train", "val", "test", "train_extra"]
        places = [root / f"leftImg8bit/{folder}/{city}/{frame}_leftImg8bit.png" for folder in folders]
        image = _existing([*listed, *places])
        return Pair(image, root / f"gtFine/{image.parent.parent.name}/{city}/{frame}_gtFine_{kind}.png")

    defaults = _default_val(config, sorted((root / "leftImg8bit/val").glob("*/*_leftImg8bit.png")), find, root)
    parts = _parts(config, root, wanted, find, found=defaults)
    for part in PARTS:
        parts[part] = tuple(Pair(pair.image, _of_kind(pair.mask, kind)) for pair in parts[part])
    palette = np.array([color for _, _, color in classes.CITYSCAPES], np.uint8)
    table = mask_table.cityscapes_label_ids() if by_label_id else mask_table.identity()
    return _dataset(config, root, parts, [name for _, name, _ in classes.CITYSCAPES], palette, table)


def _of_kind(mask: Path | None, kind: str) -> Path | None:
    """A listed mask in the kind of ids that is there."""
    if mask is None or "_gtFine_label" not in mask.name:
        return mask
    return mask.with_name(f"{mask.name.partition('_gtFine_label')[0]}_gtFine_{kind}.png")


def _coco(config: DataConfig, wanted: Wanted) -> Dataset:
    root = _root(config)

    def find(name: str) -> Pair | None:
        stem = id_of(name)
        listed = [under(root, name)] if is_path(name) else []
        places = (root / f"{above}{part}/{stem}.jpg" for above in ("", "images/") for part in ("train2017", "val2017"))
        image = _existing([*listed, *places])
        return Pair(image, _existing(root / f"masks/{below}{stem}.png" for below in ("", f"{image.parent.name}/")))

    images = sorted(root.glob("val2017/*.jpg")) or sorted(root.glob("images/val2017/*.jpg"))
    parts = _parts(config, root, wanted, find, found=_default_val(config, images, find, root))
    polygons = next(root.glob("annotations/*.json"), None)
    drawn = (root / "masks").exists() or all(pair.mask and pair.mask.is_file() for pair in parts["labeled"])
    if polygons and not drawn:
        raise UserError(
            "data.root: expected COCO's masks as index PNGs in masks/, got annotations in JSON alone "
            f"(docs/data.md says how to draw them): {polygons}"
        )
    return _dataset(config, root, parts, classes.COCO, voc_palette(len(classes.COCO)))


def _ade20k(config: DataConfig, wanted: Wanted) -> Dataset:
    root = _root(config)

    def find(name: str) -> Pair | None:
        stem = id_of(name)
        part = "validation" if stem.startswith("ADE_val") else "training"
        image = under(root, name if is_path(name) else f"images/{part}/{stem}.jpg")
        return Pair(image, root / f"annotations/{part}/{stem}.png")

    images = sorted((root / "images/validation").glob("*.jpg"))
    parts = _parts(config, root, wanted, find, found=_default_val(config, images, find, root))
    table = mask_table.reduced_zero_label()
    return _dataset(config, root, parts, classes.ADE20K, voc_palette(len(classes.ADE20K)), table)


_LAYOUTS = {
    "builtin": _builtin,
    "folder": _folder,
    "voc": _voc,
    "cityscapes": _cityscapes,
    "coco": _coco,
    "ade20k": _ade20k,
}


def _dataset(
    config: DataConfig,
    root: Path,
    parts: dict[str, tuple[Pair, ...]],
    names: Sequence[str],
    palette: np.ndarray,
    table: np.ndarray | None = None,
    source: str | None = None,
) -> Dataset:
    """`names` are those of `source`, by default of the layout."""
    table = mask_table.configured(config, mask_table.identity() if table is None else table)
    source = source or f"the {config.layout} data set"
    chosen = class_names(config, names, source)
    note = nothing_in_common(chosen, names, source)
    return Dataset(
        name=config.layout,
        root=root,
        class_names=chosen,
        palette=_palette(config, palette),  # relies on the table's checks
        mask_table=table,
        labeled=parts["labeled"],
        unlabeled=tuple(Pair(pair.image, None) for pair in parts["unlabeled"]),
        val=parts["val"],
        test=parts["test"],
        truth={pair.image: pair.mask for pair in parts["unlabeled"] if pair.mask},
        ignored_by_user=config.ignore_values is not None,
        notes=(note,) if note else (),
    )


def _parts(
    config: DataConfig,
    root: Path,
    wanted: Wanted,
    find: Find,
    *,
    defaults: dict[str, str] | None = None,
    found: dict[str, tuple[Pair, ...]] | None = None,
    pairing: Pairing | None = None,
) -> dict[str, tuple[Pair, ...]]:
    """The four parts: by the lists of `config`, else the layout's `defaults`, else what it has `found` itself."""
    lists = (defaults or {}) | find_lists(config, root)
    parts: dict[str, tuple[Pair, ...]] = {}
    for part in PARTS:
        if part not in wanted.parts:
            parts[part] = ()
        elif name := lists.get(part):
            parts[part] = read_part(part, name, root, find, pairing)
        else:
            parts[part] = (found or {}).get(part, ())
            if not parts[part] and part not in wanted.optional:
                raise UserError(f"data.{part}: expected a list file for {config.layout}, got none{_HINT[part]}")
    return parts


_HINT = {
    "labeled": " (data.split names a whole split)",
    "unlabeled": " (data.split names a whole split, `python -m maskmatch.split` makes one; where every image is "
    "labelled, train with --method.supervised_only true)",
    "val": " (`python -m maskmatch.split` can hold out a part of the labelled images)",
}
_WITHOUT = dict.fromkeys(PARTS, "") | {
    "unlabeled": " (where every image is labelled, train with --method.supervised_only true)"
}


def read_part(part: str, name: str, root: Path, find: Find, pairing: Pairing | None) -> tuple[Pair, ...]:
    """The images of a part by its list file, or by a pattern; UserError where there is none, or no mask for one."""
    labeled = part != "unlabeled"
    if pairing and _is_pattern(name, root):
        pairs = tuple(pairing.pair(image) for image in pairing.images_of(name))
        bare = next((pair.image for pair in pairs if pair.mask is None), None)
        if labeled and bare:
            raise UserError(
                f"data.{part}: expected a mask in {pairing.masks.text} (data.masks) for every image of {name}, found "
                f"none that agrees by {pairing.images.text} (data.images): {bare}"
            )
    else:
        path = _list_file(name, root)
        if path is None:
            raise UserError(
                f"data.{part}: expected a list file, found none in the current folder nor in {root}: {name}"
            )
        name = str(path)
        pairs = read_list(path, root, labeled=labeled, find=find)
    if not pairs:
        raise UserError(f"data.{part}: expected at least one image, got an empty list: {name}{_WITHOUT[part]}")
    return pairs


def _list_file(name: str, root: Path) -> Path | None:
    return next((path for path in (Path(name), root / name) if path.is_file()), None)


def _is_pattern(name: str | None, root: Path) -> bool:
    """Whether a part is found by a pattern: its own, which no list file has for a name, or the layout's."""
    return name is None or (is_pattern(name) and _list_file(name, root) is None)


def _default_val(config: DataConfig, images: Sequence[Path], find: Find, root: Path) -> dict[str, tuple[Pair, ...]]:
    """The public validation images, for a run that names no others."""
    if config.val is not None:
        return {}
    pairs = [find(str(image.relative_to(root))) for image in images]
    return {"val": tuple(pair for pair in pairs if pair)}


def _existing(paths: Iterable[Path]) -> Path:
    """The first path that is there; the first of all where none is, for the check to name."""
    paths = list(paths)
    return next((path for path in paths if path.is_file()), paths[0])


def _root(config: DataConfig) -> Path:
    if config.root is None:
        raise UserError(f"data.root: expected the folder of the {config.layout} data set, got none")
    root = Path(config.root)
    if not root.is_dir():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"data.root: expected a folder, found none: {root}{where}")
    return root


def _palette(config: DataConfig, known: np.ndarray) -> np.ndarray:
    """The user's colours, else those that masks store, else the layout's, uint8 [C, 3]."""
    if config.palette is not None:
        return parse_palette(config.palette, len(known))
    colored = config.mask_values and isinstance(config.mask_values[0], list)
    return np.array(config.mask_values, np.uint8) if colored else known
