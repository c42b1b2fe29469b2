"""What the classes are called, and in which order: by the user's options, by classes.txt, or by the data set."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_lines
from maskmatch.config import DataConfig

CLASSES_FILE = "classes.txt"


def names_of_folder(config: DataConfig, root: Path) -> list[str]:
    """The lines of classes.txt; else the names of the options, or numbers.

    Raises UserError where nothing says how many classes there are.
    """
    path = root / CLASSES_FILE
    lines = read_lines(path, "one class name on a line") if path.is_file() else []
    if names := [line.strip() for line in lines if line.strip()]:
        return names
    count = config.num_classes
    if count is None and config.class_names is None and config.mask_values is None:
        raise UserError(f"data.num_classes: expected the number of classes, got none, and no {CLASSES_FILE} in {root}")
    if config.class_names is not None and count in (None, len(config.class_names)):
        return list(config.class_names)
    return [str(index) for index in range(len(config.mask_values or ()) if count is None else count)]


def class_names(config: DataConfig, known: Sequence[str], source: str) -> tuple[str, ...]:
    """The user's names, else the `known` ones of `source`; both must agree in number and order.

    Raises UserError also for a single class, which a network could answer without looking.
    """
    count = len(known)
    if config.num_classes not in (None, count):
        raise UserError(f"data.num_classes: expected {count} for this data set, got {config.num_classes}")
    if config.class_names is not None and len(config.class_names) != count:
        raise UserError(f"data.class_names: expected {count} names, got {len(config.class_names)}")
    if count == 1:
        rest = "rest" if known[0].lower() == "background" else "background"
        raise UserError(
            f"data.class_names: expected two classes or more, got one ({known[0]}): name the {rest} as well, such as "
            "[background, crack], with data.mask_values 0,255 where masks hold 0 and 255"
        )
    if config.mask_values is not None and len(config.mask_values) != count:
        raise UserError(f"data.mask_values: expected {count}, one a class, got {len(config.mask_values)}")
    if not 1 <= count <= IGNORE_INDEX:
        raise UserError(f"data.num_classes: expected 1 to {IGNORE_INDEX}, got {count}")
    names = tuple(config.class_names or known)
    moved = first_moved(names, known)
    if moved and (config.mask_values is None or source == CLASSES_FILE):  # which give a layout's classes another order
        name, now, then = moved
        raise UserError(
            f"data.class_names: expected the order of {source}, whose class {then} is {known[then]}, got {name} as "
            f"class {now} (masks hold numbers, so the order says what they mean; if {source} is wrong, mend it)"
        )
    return names


def first_moved(names: Sequence[str], others: Sequence[str]) -> tuple[str, int, int] | None:
    """The first name that both have, at different places: itself, its place among `names` and among `others`."""
    keys = [_key(name) for name in others]
    places = {key: place for place, key in enumerate(keys) if key and keys.count(key) == 1}
    for now, name in enumerate(names):
        then = places.get(_key(name), now)
        if then != now and not (now < len(keys) and keys[now] == _key(name)):
            return name, now, then
    return None


def nothing_in_common(names: Sequence[str], known: Sequence[str], source: str) -> str | None:
    """A line where no class is called as `source` calls it."""
    if {_key(name) for name in names} & {_key(name) for name in known}:
        return None
    return f"data.class_names: {source} has none of these names: class 0 is {names[0]} here and {known[0]} there"


def _key(name: str) -> str:
    """What makes a name, whoever writes it: `traffic_light` is `Traffic light`."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def called(name: str) -> str:
    """What a class is called in a sentence: `class 1` where it has no name but its number."""
    return f"class {name}" if name.isdecimal() else name
