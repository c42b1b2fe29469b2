"""What the values in masks mean: classes, their names, and what is ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data.checking.stored_values import MaskValues, not_alike
from maskmatch.data.dataset import Dataset
from maskmatch.data.decoding import mask_table
from maskmatch.data.decoding.classes import voc_palette
from maskmatch.data.decoding.files import COLORS, value_text
from maskmatch.data.listing.class_names import CLASSES_FILE, called, class_names, names_of_folder
from maskmatch.planning.choice import Choice
from maskmatch.planning.class_files import Named
from maskmatch.planning.mask_reading import Masks, smeared

HANDFUL = 20  # pixels in all masks together: too few to be a class, or to learn one
LAST_INDEX = 40  # 255 beside numbers up to this means that nothing is known there; beside gray levels it is one of them


class Classes(NamedTuple):
    """The classes of a folder's masks."""

    names: tuple[str, ...]  # C of them
    table: np.ndarray  # what is stored -> class or IGNORE_INDEX
    pixels: np.ndarray  # int64 [N, C], of each mask and class
    ignored: float  # share of all pixels
    choices: list[Choice]
    notes: list[str]

    @property
    def called(self) -> list[str]:
        """What the classes are called in a sentence."""
        return [called(name) for name in self.names]

    @property
    def shown(self) -> np.ndarray:
        """bool [N, C], the classes that each mask shows."""
        return self.pixels > 0

    @property
    def shares(self) -> np.ndarray:
        """float64 [C], of the pixels that are a class."""
        pixels = self.pixels.sum(0).astype(np.float64)
        return np.asarray(pixels / max(1.0, pixels.sum()))


class _Values(NamedTuple):
    classes: list[int]
    ignored: list[int]  # beside 255, which is ignored wherever it is no class
    names: list[str] | None
    by: str  # reason
    notes: list[str]


def find_classes(root: Path, masks: Masks, named: Named | None, yours: Mapping[str, Any]) -> Classes:
    """What the masks' values mean: as the user's options say, else a file of names, else the values themselves.

    Raises UserError for masks that are no plain values, that store values which the names do not account for, that are
    stored in two ways, or that show less than two classes.
    """
    set_here = {name: yours[f"data.{name}"] for name in ("mask_values", "ignore_values") if f"data.{name}" in yours}
    choices: list[Choice] = []
    notes: list[str] = []
    if not set_here:
        if line := smeared(masks, len(named.names) if named else yours.get("data.num_classes")):
            raise UserError(line)
        count = yours.get("data.num_classes") or len(yours.get("data.class_names") or ())
        values = _values(masks, named, count)
        choices, notes = _choices(values, masks, named, yours), list(values.notes)
        set_here = {one.option.removeprefix("data."): one.value for one in choices if one.option.endswith("_values")}
    chosen = {one.option.removeprefix("data."): one.value for one in choices}
    mine = {name: yours[f"data.{name}"] for name in ("num_classes", "class_names") if f"data.{name}" in yours}
    config = DataConfig(name="folder", root=str(root), **(chosen | set_here | mine))
    names = class_names(config, names_of_folder(config, root), CLASSES_FILE)
    dataset = _dataset(root, config, names)
    pixels, ignored = _count(masks, dataset)
    alike = [MaskValues(one.pair.mask, one.values, one.counts, "") for one in masks.read if one.pair.mask]
    if line := not_alike(dataset, alike):
        raise UserError(line)
    if not pixels.any():
        raise UserError(f"data.masks: expected some pixels of a class, got none: {masks.read[0].file}")
    found = Classes(names, dataset.mask_table, pixels, ignored, choices, notes)
    if missing := [name for name, number in zip(found.called, pixels.sum(0), strict=True) if not number]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(f"no mask shows {', '.join(missing[:5])}{more}, which cannot be learned so")
    return found


def _values(masks: Masks, named: Named | None, count: int) -> _Values:
    totals: Counter[int] = Counter()
    for mask in masks.read:
        totals.update(dict(zip(mask.values.tolist(), mask.counts.tolist(), strict=True)))
    if masks.colored and named and named.colored:
        return _by_file(masks, named, totals)
    if not masks.colored and _ignores_255(totals, named, count):
        del totals[IGNORE_INDEX]
    if named and not named.colored and named.values is not None:
        return _by_file(masks, named, totals)
    return _by_themselves(masks, totals, named, count)


def _by_file(masks: Masks, named: Named, totals: Counter[int]) -> _Values:
    """The file says what masks store."""
    known = named.values or []
    strays = [value for value in sorted(totals) if value not in (*known, *named.ignored)]
    _refuse_many(masks, strays, totals, f"values of {named.file.name}")
    kind = "colours" if named.colored else "values"
    ignored = [*named.ignored, *strays]
    return _Values(known, ignored, named.names, f"{kind} and names of {named.file.name}", _note(masks, strays, totals))


def _by_themselves(masks: Masks, totals: Counter[int], named: Named | None, count: int) -> _Values:
    """Every value is a class; a file may name them, in ascending order."""
    names = named.names if named and (not named.colored or not masks.colored) else None
    count = len(names) if names else count
    values = sorted(totals)
    if count and not masks.colored and values and values[-1] < count:
        values = list(range(count))
    strays = [value for value in values if totals[value] <= HANDFUL and value in totals]
    strays = strays if len(values) - len(strays) >= (count or 2) and values != list(range(len(values))) else []
    values = [value for value in values if value not in strays]
    by = f"{named.file} has names" if named else "the options say"
    stored = ", ".join(value_text(value, colors=masks.colored) for value in values[:8])
    stored += ", ..." if len(values) > 8 else ""
    if count and len(values) != count:
        raise UserError(
            f"data.mask_values: expected as many values in the masks as {by}, {count}, got {len(values)} ({stored}): "
            f"name what each of them is, the background too, or say with data.mask_values and data.ignore_values "
            f"what is a class: {masks.read[0].file}"
        )
    if names and masks.colored:
        raise UserError(
            f"data.mask_values: expected the colour of each class in the order of {by}, got none, and masks store "
            f"{stored}: {masks.read[0].file}"
        )
    if len(values) > IGNORE_INDEX or len(values) < 2:
        got = ", ".join(value_text(value, colors=masks.colored) for value in values[:4]) or "none"
        raise UserError(
            f"data.masks: expected masks of 2 to {IGNORE_INDEX} values, one a class, the background too, got "
            f"{len(values)} in {len(masks.read)} masks ({got}{', ...' if len(values) > 4 else ''}): "
            f"{masks.read[0].file}"
        )
    shown = ", ".join(value_text(value, colors=masks.colored) for value in values[:6])
    by = f"masks store {shown}{f' ... {values[-1]}' if len(values) > 6 and not masks.colored else ''}"
    return _Values(values, strays, names if named and named.colored else None, by, _note(masks, strays, totals))


def _ignores_255(totals: Counter[int], named: Named | None, count: int) -> bool:
    """Whether 255 says that nothing is known: beside indices, not beside 0 alone or among gray levels."""
    others = sorted(value for value in totals if value != IGNORE_INDEX)
    if IGNORE_INDEX not in totals or (named and named.values and IGNORE_INDEX in named.values):
        return False
    known = len(named.names) if named else count
    if known and len(others) + 1 == known and others != list(range(len(others))):
        return False
    return len(others) > 1 and (others[-1] <= LAST_INDEX or others == list(range(others[0], others[-1] + 1)))


def _refuse_many(masks: Masks, strays: list[int], totals: Counter[int], expected: str) -> None:
    """Raise UserError for a value beside those that are known, unless it is in a handful of pixels."""
    many = [value for value in strays if totals[value] > HANDFUL]
    if many:
        mask = next(mask for mask in masks.read if many[0] in mask.values)
        got = value_text(many[0], colors=masks.colored)
        raise UserError(
            f"data.masks: expected {expected}, got {got} in {totals[many[0]]} pixels (data.ignore_values lists what is "
            f"no class): {mask.file}"
        )


def _note(masks: Masks, strays: list[int], totals: Counter[int]) -> list[str]:
    if not strays:
        return []
    mask = next(mask for mask in masks.read if strays[0] in mask.values)
    values = ", ".join(value_text(value, colors=masks.colored) for value in strays[:5])
    pixels = sum(totals[value] for value in strays)
    return [f"ignored in masks, as it is in {pixels} pixels alone: {values}, such as in {mask.file}"]


def _choices(found: _Values, masks: Masks, named: Named | None, yours: Mapping[str, Any]) -> list[Choice]:
    def unpacked(values: list[int]) -> list[Any]:
        return [[value >> 16, value >> 8 & 255, value & 255] for value in values] if masks.colored else list(values)

    choices = []
    if masks.colored or found.classes != list(range(len(found.classes))):
        choices.append(Choice("data.mask_values", unpacked(found.classes), found.by))
    if found.ignored:
        also = [IGNORE_INDEX] if not masks.colored and IGNORE_INDEX not in found.classes else []
        why = "stand for no class" if not found.notes else "stand for no class, or are in a handful of pixels"
        choices.append(Choice("data.ignore_values", [*unpacked(found.ignored), *also], why))
    if found.names and "data.class_names" not in yours and named:
        choices.append(Choice("data.class_names", found.names, f"of {named.file.name}"))
    elif not named and not {"data.class_names", "data.num_classes"} & yours.keys():
        choices.append(Choice("data.num_classes", len(found.classes), f"{found.by}; no {CLASSES_FILE} names them"))
    return choices


def _dataset(root: Path, config: DataConfig, names: tuple[str, ...]) -> Dataset:
    """What the checks of masks need of one."""
    table = mask_table.configured(config, mask_table.identity())
    ignored = config.ignore_values is not None
    palette = voc_palette(len(names))
    return Dataset("folder", root, names, palette, (), (), (), (), table, ignored_by_user=ignored)


def _count(masks: Masks, dataset: Dataset) -> tuple[np.ndarray, float]:
    """Pixels of each mask and class, int64 [N, C], and the share of all pixels that is ignored."""
    table, count = dataset.mask_table, dataset.num_classes
    pixels = np.zeros((len(masks.read), count + 1), np.int64)
    for row, mask in zip(pixels, masks.read, strict=True):
        if masks.colored != (len(table) == COLORS) or (len(mask.values) and mask.values[-1] >= len(table)):
            raise UserError(f"data.mask_values: expected values as the masks store them, got others: {mask.file}")
        classes = table[mask.values].astype(np.int64)
        if (wrong := (classes >= count) & (classes != IGNORE_INDEX)).any():
            got = value_text(int(mask.values[wrong][0]), colors=masks.colored)
            raise UserError(f"mask value: expected a class or what is ignored, got {got}: {mask.file}")
        np.add.at(row, np.minimum(classes, count), mask.counts)
    return pixels[:, :count], float(pixels[:, count].sum() / max(1, pixels.sum()))
