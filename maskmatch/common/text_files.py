"""Text files: what a user wrote is read (lists, class names, configurations), what a user shall find is written."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from maskmatch.common.errors import UserError

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, expected: str, *, undecodable: Literal["strict", "surrogateescape"] = "strict") -> str:
    """The content of a text file in UTF-8, with or without a byte order mark, or in UTF-16 with one (PowerShell's `>`).

    Args:
        path: of the file.
        expected: what it should be, for the error.
        undecodable: `surrogateescape` keeps bytes that are no UTF-8 as Python keeps those of file names.

    Raises:
        UserError: it cannot be read, or is not such text; names the file and the first byte that is wrong.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"expected {expected}, got {error.strerror}: {path}") from error
    try:
        if content.startswith(UTF_16_MARKS) and "\0" not in (text := content.decode("utf-16")):
            return text
        if (place := content.find(0)) >= 0:  # an image, UTF-16 without its mark, UTF-32
            raise UserError(f"expected {expected}, got a zero at byte {place}: {path}")
        return content.decode("utf-8-sig", undecodable)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"expected {expected} in UTF-8, got byte 0x{content[error.start]:02x} in line {line}, at byte "
            f"{error.start} (`iconv -f latin1 -t utf-8` converts Latin-1): {path}"
        ) from error


def read_lines(path: Path, expected: str, *, undecodable: Literal["strict", "surrogateescape"] = "strict") -> list[str]:
    """The lines of `read_text`; other than `str.splitlines`, only line feeds and carriage returns part them."""
    return re.split(r"\r\n|\n|\r", read_text(path, expected, undecodable=undecodable))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; in UTF-8, but for names of files that are none."""
    with whole(path) as beside, open(beside, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside a file, which takes its name once it is written: no file is half, and no link written through."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)  # of a call that was killed, or a link of whoever made the folder
    yield beside
    os.replace(beside, path)


def writable_folder(folder: Path) -> Path:
    """Make the folder where there is none; raise UserError where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the output folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to the output folder {folder}: permission denied")
    return folder
