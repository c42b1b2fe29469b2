"""What the values in masks mean: tables from what is stored to class indices. `files.read_mask` uses them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data.decoding.classes import CITYSCAPES, CITYSCAPES_LAST_ID
from maskmatch.data.decoding.files import COLORS

UNLISTED = 256
"""Stands in a table for a value that is neither a class nor ignored. Above what a byte holds, since all 255 classes and
IGNORE_INDEX are taken; so a table that may hold it is uint16."""

Value = int | list[int]


def identity() -> np.ndarray:
    """Masks that store class indices."""
    return np.arange(256, dtype=np.uint8)


def cityscapes_label_ids() -> np.ndarray:
    """Masks that store Cityscapes' labelIds; all but the 19 classes are ignored."""
    table = identity()
    table[: CITYSCAPES_LAST_ID + 1] = IGNORE_INDEX
    for train_id, (label_id, _, _) in enumerate(CITYSCAPES):
        table[label_id] = train_id
    return table


def reduced_zero_label() -> np.ndarray:
    """Masks that count classes from 1, with 0 for none of them, as ADE20K's do."""
    table = np.arange(-1, 255).astype(np.uint8)
    table[[0, 255]] = IGNORE_INDEX
    return table


def configured(config: DataConfig, known: np.ndarray) -> np.ndarray:
    """The table of `data.mask_values` and `data.ignore_values`, else the layout's `known` one.

    Raises UserError for values that no mask can hold, that stand twice, or that mix numbers and colours.
    """
    if config.mask_values is None and config.ignore_values is None:
        return known
    ignored = [IGNORE_INDEX] if config.ignore_values is None else config.ignore_values
    if config.mask_values is None:
        if any(isinstance(value, list) for value in ignored):
            raise UserError(f"data.ignore_values: expected numbers, as data.mask_values has no colours, got {ignored}")
        numbers = _encoded(ignored, "data.ignore_values")
        table = np.concatenate([known.astype(np.uint16), np.full(2**16 - len(known), UNLISTED, np.uint16)])
        table[numbers] = IGNORE_INDEX
        return table
    values = config.mask_values
    colored = isinstance(values[0], list) if values else False
    if config.ignore_values is None and (colored or IGNORE_INDEX in values):
        ignored = []
    if not 0 < len(values) <= IGNORE_INDEX or any(isinstance(value, list) != colored for value in [*values, *ignored]):
        raise UserError(
            "data.mask_values and data.ignore_values: expected all numbers or all colours [r, g, b], for at most "
            f"{IGNORE_INDEX} classes, got {values} and {ignored}"
        )
    classes, others = _encoded(values, "data.mask_values"), _encoded(ignored, "data.ignore_values")
    if len({*classes, *others}) < len(classes) + len(others):
        raise UserError(f"data.mask_values, data.ignore_values: expected each value once, got {values} and {ignored}")
    table = np.full(COLORS if colored else 2**16, UNLISTED, np.uint16)
    table[others] = IGNORE_INDEX
    table[classes] = np.arange(len(classes), dtype=np.uint16)
    return table


def _encoded(values: Sequence[Value], option: str) -> list[int]:
    """Numbers as they are, colours as `files.read_stored_mask` packs them."""
    codes = []
    for value in values:
        parts, count, limit = (value, 3, 256) if isinstance(value, list) else ([value], 1, 2**16)
        if len(parts) != count or not all(0 <= part < limit for part in parts):
            raise UserError(f"{option}: expected numbers from 0 to 65535 or colours [r, g, b], got {value}")
        codes.append(parts[0] if count == 1 else parts[0] << 16 | parts[1] << 8 | parts[2])
    return codes
