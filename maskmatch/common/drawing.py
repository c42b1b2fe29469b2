"""Matplotlib and a user's text: names are drawn as they are, and a drawing that fails costs nothing but itself."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Patch

PLACEHOLDER_FONT = "Last Resort"
"""Has every character, as a box that names its block; matplotlib brings it along."""


class Names(NamedTuple):
    """Names as a picture can show them."""

    texts: list[str]
    """For matplotlib, `$` escaped; the place in the list for a name that no installed font can write."""
    family: list[str]
    """Its `fontfamily`."""


def drawable(names: Sequence[str]) -> Names:
    """Names that are neither maths nor boxes."""
    texts, family = [], list(rcParams["font.family"])
    for index, name in enumerate(names):
        shown = "".join(_visible(name))
        font = _font_for(frozenset(shown) - {" ", "\n"})
        texts.append(str(index) if font is None else shown.replace("$", r"\$"))
        if font and font not in family:
            family.append(font)
    return Names(texts, family)


def add_legend(figure: Figure, names: Sequence[str], colors: np.ndarray, **options: Any) -> None:
    """A legend of swatches in `colors`, [n, 3] in [0, 1]; `options` are those of `Figure.legend`."""
    handles = [Patch(facecolor=color, edgecolor="gray") for color in colors]
    legend = figure.legend(handles, [" "] * len(handles), **options)
    shown = drawable(names)
    for text, name in zip(legend.get_texts(), shown.texts, strict=True):
        text.set_text(name)  # afterwards, as matplotlib leaves labels out that begin with `_`
        text.set_fontfamily(shown.family)


@contextlib.contextmanager
def spared(
    path: Path, say: Callable[[str], object], fatal: tuple[type[Exception], ...] | type[Exception] = ()
) -> Iterator[None]:
    """Whatever goes wrong with a drawing, but for what is `fatal`, is told in one line, and the program goes on."""
    try:
        yield
    except fatal:
        raise
    except Exception as error:  # the numbers are worth more than any picture of them
        problem = " ".join(str(error).split()) or type(error).__name__
        say(f"warning: {path} could not be drawn: {problem[:200]}")


def _visible(name: str) -> Iterator[str]:
    """Without what has no glyph in any font: control characters, joiners, kinds of space."""
    for character in name:
        selector = unicodedata.name(character, "").startswith("VARIATION SELECTOR")
        if character.isspace():
            yield "\n" if character == "\n" else " "
        elif not (selector or unicodedata.category(character) in ("Cc", "Cf")):
            yield character


@cache
def _font_for(characters: frozenset[str]) -> str | None:
    """The family of a font with those of the characters that matplotlib's own font lacks.

    Empty where it lacks none, None where there is no such font.
    """
    own = FT2Font(font_manager.findfont(font_manager.FontProperties()))
    missing = {character for character in characters if not own.get_char_index(ord(character))}
    if not missing:
        return ""
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    installed = {*font_manager.findSystemFonts(), *listed}
    for path in sorted(installed, key=lambda path: ("serif" in path.lower(), "bold" in path.lower(), path)):
        if family := _family_with(path, missing):
            if path not in listed:  # installed since matplotlib last looked
                font_manager.fontManager.addfont(path)
            return family
    return None


def _family_with(path: str, characters: Collection[str]) -> str | None:
    """The family of a font file, where it has the characters and can be drawn in any size."""
    try:
        font = FT2Font(path)
        has_all = all(font.get_char_index(ord(character)) for character in characters)
        usable = has_all and font.scalable and PLACEHOLDER_FONT not in font.family_name
        return font_manager.ttfFontProperty(font).name if usable else None
    except Exception:  # a damaged font is no reason to fail
        return None
