"""What was found in files before, by their paths, sizes and times of change, so that a folder is not read twice.

Kept in the user's cache, a file a folder; one that is broken or cannot be written is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from maskmatch.common.text_files import write_text
from maskmatch.common.user_cache import user_cache
from maskmatch.common.version import __version__
from maskmatch.data.checking.preflight import each
from maskmatch.data.dataset import Pair

T = TypeVar("T")


class Seen:
    """Of the folder `root`. What is not asked for again is forgotten when it is saved."""

    def __init__(self, root: Path) -> None:
        name = hashlib.sha256(os.fsencode(root.resolve()) + __version__.encode()).hexdigest()
        self.file = user_cache() / "looks" / f"{name}.json"
        self._before: dict[str, Any] = {}
        self._now: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):  # not there, or broken: all is looked at
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            self._before = kept if isinstance(kept, dict) else {}

    def each(
        self,
        what: str,
        look: Callable[[Pair], T],
        pairs: Sequence[Pair],
        stored: Callable[[T], Any],
        restored: Callable[[Pair, Any], T],
    ) -> list[T]:
        """Look at the pairs whose files are not as they were, in threads; the others' are what was found before.

        Args:
            what: is looked for; looks of one name are alike.
            look: at a pair.
            pairs: to look at.
            stored: what JSON can hold of a look, None for one that is not to be kept.
            restored: the look again; ValueError, TypeError or KeyError where it cannot be.
        """

        def one(pair: Pair) -> T:
            key = _key(what, pair)
            with contextlib.suppress(ValueError, TypeError, KeyError):
                found = restored(pair, self._before[key])
                self._now[key] = self._before[key]
                return found
            found = look(pair)
            if key and (kept := stored(found)) is not None:
                self._now[key] = kept
            return found

        return list(each(one, pairs))

    def save(self) -> None:
        """Keep what was found, if anything is new."""
        if self._now == self._before:
            return
        with contextlib.suppress(OSError):  # a home that cannot be written to
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(self._now))


def _key(what: str, pair: Pair) -> str:
    """A fingerprint of the pair's files; nothing where one is not there."""
    try:
        about = [[str(path), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in pair if path]
    except OSError:
        return ""
    return hashlib.sha256(json.dumps([what, about]).encode(errors="surrogateescape")).hexdigest()
