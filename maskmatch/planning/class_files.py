"""Files that say what the classes are called: classes.txt, CVAT's labelmap.txt and Roboflow's _classes.csv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_lines
from maskmatch.data.listing.class_names import CLASSES_FILE

LABELMAP, CLASSES_CSV = "labelmap.txt", "_classes.csv"
NOTHING = re.compile(r"void|ignored?|unlabell?ed|don.?t.?care", re.I)
"""What labels are called that stand for no class."""


class Named(NamedTuple):
    """Classes by a file, in its order."""

    file: Path
    names: list[str]
    values: list[int] | None  # what masks store for each, where the file says so; colours are r << 16 | g << 8 | b
    ignored: list[int]  # likewise, of what is no class
    colored: bool  # whether the values are colours


def named_classes(root: Path, masks: Sequence[Path]) -> Named | None:
    """The first of such files in the root or beside the `masks`; None where there is none.

    Raises UserError that names file and line where it is not written as its maker writes it.
    """
    folders = dict.fromkeys([root, *sorted({mask.parent for mask in masks})])
    for name, read in ((CLASSES_FILE, _classes_file), (LABELMAP, _labelmap), (CLASSES_CSV, _classes_csv)):
        for folder in [root] if name == CLASSES_FILE else folders:
            if (folder / name).is_file():
                return read(folder / name)
    return None


def _classes_file(file: Path) -> Named | None:
    names = [line.strip() for line in read_lines(file, "one class name on a line") if line.strip()]
    return Named(file, names, None, [], colored=False) if names else None


def _labelmap(file: Path) -> Named:
    """`label:color_rgb:parts:actions` on a line, the colour as `r,g,b`; a label may hold colons."""
    names, values, ignored = list[str](), list[int](), list[int]()
    for number, line in enumerate(read_lines(file, "label:color_rgb:parts:actions on a line"), 1):
        if not line.strip() or line.startswith("# label:"):
            continue
        fields = re.fullmatch(r"(.*):(\d{1,3}),(\d{1,3}),(\d{1,3}):([^:]*):([^:]*)", line)
        if fields is None or max(map(int, fields.group(2, 3, 4))) > 255:
            raise UserError(f"expected label:r,g,b:parts:actions, got `{line}`: {file}, line {number}")
        red, green, blue = map(int, fields.group(2, 3, 4))
        value = red << 16 | green << 8 | blue
        if value in (*values, *ignored):
            raise UserError(f"expected a colour for each label, got {red},{green},{blue} twice: {file}, line {number}")
        if NOTHING.fullmatch(fields[1].strip()):
            ignored.append(value)
        else:
            names.append(fields[1].strip())
            values.append(value)
    return Named(file, names, values, ignored, colored=True)


def _classes_csv(file: Path) -> Named:
    """`Pixel Value, Class` above a row for each; a class may hold commas."""
    names, values = list[str](), list[int]()
    for number, line in enumerate(read_lines(file, "Pixel Value, Class on a line"), 1):
        value, comma, name = (part.strip() for part in line.partition(","))
        if not line.strip() or (number == 1 and not value.isdecimal()):
            continue
        if not (comma and value.isascii() and value.isdecimal()) or int(value) > 255 or int(value) in values:
            raise UserError(f"expected Pixel Value, Class, each value once, got `{line}`: {file}, line {number}")
        values.append(int(value))
        names.append(name)
    return Named(file, names, values, [], colored=False)
