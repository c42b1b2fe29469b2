"""List files: where they are sought, and the ways in which the field writes their lines.

JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png       image and mask
/JPEGImages/2007_000032.jpg<TAB>/SegmentationClass/2007_000032.png the same, with a leading slash
leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png            the image alone
2007_000032                                                        an id
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_lines
from maskmatch.config import DataConfig
from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import IMAGE_SUFFIXES

DRAW_POLYGONS = " (polygons, of labelme or COCO, are drawn as masks first: docs/data.md, Polygons, has what to run)"
Find = Callable[[str], Pair | None]
"""A layout's image and mask for an image's path under the root, or for an id; None where it knows no such thing."""

LISTED_IN_SPLIT = {"labeled": "labeled.txt", "unlabeled": "unlabeled.txt", "val": "val.txt", "test": "test.txt"}
_FIELD_NAMES = {"voc": ("pascal", "voc")}  # what folders of splits are called for a data set


def under(root: Path, name: str) -> Path:
    """A path of a list file: below the root, also with a leading slash, unless it is a file as it stands."""
    below = root / name.lstrip("/")
    absolute = Path(name)
    return absolute if absolute.is_absolute() and not below.exists() and absolute.exists() else below


def is_path(name: str) -> bool:
    """Whether a list names an image by its path, not by an id; ids may hold dots, such as `photo_jpg.rf.0f0a`."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def id_of(name: str) -> str:
    """An id as it stands, or the name of a path without its suffix."""
    return Path(name).stem if is_path(name) else Path(name).name


def read_list(path: Path, root: Path, *, labeled: bool, find: Find) -> tuple[Pair, ...]:
    """Read a list file whose paths are under `root`. Masks are required if `labeled`.

    Fields are parted by a tab where there is one, else by white space. Raises UserError naming file and line.
    """
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        pair = _read_line(line.strip(" \t"), root, find)
        if pair is None or (labeled and pair.mask is None):
            form = "`image mask`, or an image or id that has a mask," if labeled else "`image`, or the id of one,"
            raise UserError(f"expected {form} on a line, got `{line.strip()}`: {path}, line {number}")
        pairs.append(pair)
    return tuple(pairs)


def _lines(path: Path) -> list[str]:
    """The lines of a list; bytes that are no UTF-8 are kept, as names of files may be any."""
    lines = read_lines(path, "a list file of text", undecodable="surrogateescape")
    if next((line for line in lines if line.strip()), "").lstrip().startswith(("{", "[{")):
        raise UserError(f"expected a list file, `image mask` on a line, got JSON{DRAW_POLYGONS}: {path}")
    return lines


def format_list(pairs: Iterable[Pair], root: Path) -> str:
    """A list as `read_list` reads it, its paths relative to the root."""
    rows = [[_relative(path, root) for path in pair if path] for pair in pairs]
    for name in (name for row in rows for name in row):
        if not can_be_listed(name):
            raise UserError(f"expected names that can stand on a line, without tabs and line ends, got {name!r}")
    separator = "\t" if any(" " in name for row in rows for name in row) else " "
    return "".join(separator.join(row) + "\n" for row in rows)


def can_be_listed(name: str) -> bool:
    """Whether a name can stand on a line of a list."""
    return not set("\t\r\n") & set(name) and name == name.strip()


def _relative(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path.resolve()).as_posix()


def _read_line(line: str, root: Path, find: Find) -> Pair | None:
    fields = line.split("\t") if "\t" in line else line.split(" ")
    fields = [field.strip(" ") for field in fields if field.strip(" ")]
    if len(fields) == 1 or under(root, line).is_file():  # an image's name may hold spaces
        return find(line)
    if len(fields) > 2:
        return None
    image, mask = (under(root, field) for field in fields)
    if image.is_file() and mask.is_file():
        return Pair(image, mask)
    found = find(fields[0])
    # The layout may keep the image or its mask under another name than the list's.
    return Pair(
        found.image if found and found.image.is_file() and not image.is_file() else image,
        found.mask if found and found.mask and found.mask.is_file() and not mask.is_file() else mask,
    )


def located(config: DataConfig, folder: Path) -> DataConfig:
    """The options with absolute paths, as they were meant in `folder`; what is not there stays as it is."""
    there = folder / (config.root or "")
    if config.root is None or not there.is_dir():
        return config
    found: dict[str, Any] = {"root": str(there)}
    for part in LISTED_IN_SPLIT:
        name = getattr(config, part)
        if name is not None and (folder / name).is_file():
            found[part] = str(folder / name)
    if config.split is not None:
        with suppress(UserError):  # where it is wanted, its absence will be said
            found["split"] = str(_split_folder(config.split, config.layout, there, folder))
    return replace(config, **found)


def find_lists(config: DataConfig, root: Path) -> dict[str, str]:
    """Part -> list file or pattern: the options', and those of the split for parts that have none.

    A split is a folder with labeled.txt and unlabeled.txt; val.txt and test.txt are in it or in the folder above.
    """
    chosen = {part: getattr(config, part) for part in LISTED_IN_SPLIT if getattr(config, part) is not None}
    if config.split is None:
        return chosen
    folder = _split_folder(config.split, config.layout, root)
    for part, name in LISTED_IN_SPLIT.items():
        places = [folder] if part in ("labeled", "unlabeled") else [folder, folder.parent]
        found = next((place / name for place in places if (place / name).is_file()), None)
        if found and part not in chosen:
            chosen[part] = str(found.resolve())
    return chosen


def _split_folder(split: str, name: str, root: Path, here: Path = Path()) -> Path:
    """The folder itself, or the split of that name in splits/ here, in the data set, or beside it."""
    above = [here / "splits", root / "splits", root.parent / "splits"]
    kinds = ["", *_FIELD_NAMES.get(name, (name,))]
    places = [here / split, *(folder / kind / split for folder in above for kind in kinds)]
    for place in places:
        if (place / LISTED_IN_SPLIT["labeled"]).is_file():
            return place
    known = sorted({str(path.parent.relative_to(folder)) for folder in above for path in folder.glob("**/labeled.txt")})
    there = f"; there are {', '.join(known)}" if known else ""
    raise UserError(
        f"data.split: expected a folder with labeled.txt, or its name in splits/ here, in {root} or beside it, "
        f"got {split}{there}"
    )
