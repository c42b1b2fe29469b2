"""What a user asks to have predicted: files, patterns, folders and videos, as named images one after the other."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from maskmatch.common.errors import UserError
from maskmatch.data.decoding.files import IMAGE_SUFFIXES, is_utf8, read_image
from maskmatch.data.listing.patterns import Pattern, is_pattern
from maskmatch.inference.modes import BATCH_PIXELS

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
READERS = 2
"""Threads that decode images while the network computes."""
READ_AHEAD = 8
"""Decoded images that may wait for the network."""


@dataclass(frozen=True)
class Input:
    """A file, and what its predictions are to be called."""

    path: Path
    name: str  # without suffix; `/` parts folders

    @property
    def is_video(self) -> bool:
        """Whether it holds frames, each of which is predicted."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


class NamedImage(NamedTuple):
    """One image to predict."""

    name: str
    source: Path
    pixels: np.ndarray  # uint8 [H, W, 3], RGB


def find_inputs(arguments: Iterable[str], not_in: Sequence[Path] = ()) -> list[Input]:
    """The images and videos that the arguments stand for, in order, each once.

    A file keeps its name, what a folder or a pattern holds its path below it. Where two would get one name (a.jpg
    and a.png), they keep their suffix. What does not exist is kept as well, for the reading to say so. Files in the
    folders of `not_in` are passed over: the output of an earlier call is no input.

    Raises:
        UserError: two files of different folders would get one name.
    """
    found: dict[Path, Input] = {}
    for argument in arguments:
        for path, base in _expanded(argument):
            if any(path.absolute().is_relative_to(folder.absolute()) for folder in not_in):
                continue
            found.setdefault(path.absolute(), Input(path, _name(_below(path, base))))
    by_name: dict[str, list[Input]] = defaultdict(list)
    for one in found.values():
        by_name[one.name].append(one)
    inputs = [
        replace(one, name=f"{one.name}{one.path.suffix}") if len(by_name[one.name]) > 1 else one
        for one in found.values()
    ]
    seen: dict[str, Path] = {}
    for one in inputs:
        if (other := seen.setdefault(one.name, one.path)) != one.path:
            raise UserError(
                f"expected images of different names, got {other} and {one.path}: "
                "a folder or a quoted pattern keeps the folders below it apart"
            )
    return inputs


def _expanded(argument: str) -> Iterator[tuple[Path, Path]]:
    """The files of an argument, each with the folder that its name is relative to."""
    path = Path(argument)
    if path.is_dir():
        below = (Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names)
        yield from ((file, path) for file in sorted(below) if _is_known(file))
    elif not path.exists() and is_pattern(argument):
        pattern = Pattern(Path(), argument)
        files = pattern.files(IMAGE_SUFFIXES | VIDEO_SUFFIXES)
        yield from ((file, pattern.folder) for file in files)
        if not files:
            yield path, path.parent  # nothing there, which the reading will say
    else:
        yield path, path.parent


def _below(path: Path, base: Path) -> Path:
    return path.relative_to(base) if path.is_relative_to(base) else Path(path.name)


def _name(path: Path) -> str:
    """Without the suffix, but where a name of nothing but dots would be left, which stands for a folder."""
    return path.as_posix() if not path.stem.strip(".") else path.with_suffix("").as_posix()


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def read_inputs(
    inputs: Sequence[Input], wanted: Callable[[str], bool], fail: Callable[[str], object]
) -> Iterator[NamedImage]:
    """The images in order, decoded ahead of their use; a frame of a video is called NAME/000000.

    Args:
        inputs: from `find_inputs`.
        wanted: whether an image of this name is to be read at all.
        fail: is told, in one line, of every file that cannot be read.
    """
    with ThreadPoolExecutor(READERS) as pool:
        pending: deque[tuple[Input, Future[np.ndarray]]] = deque()
        for one in inputs:
            if one.is_video:
                yield from _decoded(pending, 0, fail)
                yield from _frames(one, wanted, fail)
            elif wanted(one.name):
                pending.append((one, pool.submit(read_image, one.path)))
                yield from _decoded(pending, READ_AHEAD, fail)
        yield from _decoded(pending, 0, fail)


def in_batches(images: Iterable[NamedImage]) -> Iterator[list[NamedImage]]:
    """Consecutive images of one size, as many as share a forward."""
    for (height, width), same in groupby(images, key=lambda image: image.pixels.shape[:2]):
        while batch := list(islice(same, max(1, BATCH_PIXELS // (height * width)))):
            yield batch


def _decoded(
    pending: deque[tuple[Input, Future[np.ndarray]]], left: int, fail: Callable[[str], object]
) -> Iterator[NamedImage]:
    while len(pending) > left:
        one, reading = pending.popleft()
        try:
            yield NamedImage(one.name, one.path, reading.result())
        except UserError as error:
            fail(str(error))


@contextmanager
def _plain_name(path: Path) -> Iterator[Path]:
    """The file under a name that is UTF-8, without which OpenCV ends the process."""
    if is_utf8(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "video").with_suffix(path.suffix)
        link.symlink_to(path.absolute())
        yield link


def _frames(video: Input, wanted: Callable[[str], bool], fail: Callable[[str], object]) -> Iterator[NamedImage]:
    """The frames of a video; those that are not wanted are passed over without being decoded to pixels."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what goes wrong is said below, in one line
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with _plain_name(video.path) as path:
        capture = cv2.VideoCapture(str(path)) if path.is_file() else cv2.VideoCapture()
    try:
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        index = 0
        while capture.isOpened() and capture.grab():
            name = f"{video.name}/{index:06d}"
            if wanted(name):
                whole, frame = capture.retrieve()
                if not whole:
                    break
                yield NamedImage(name, video.path, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            index += 1
    finally:
        capture.release()
    if not video.path.is_file():
        fail(f"expected a video, found no file: {video.path}")
    elif index == 0:
        fail(f"expected a readable video, got no frame: {video.path}")
    elif index < expected:
        fail(f"expected a video of {expected} frames, could read {index}: {video.path}")
