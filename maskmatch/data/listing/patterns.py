"""The one reading of file patterns, for every option that takes some.

`*` and `?` stay within a name, `[0-3]` is one of several characters, `**/` any number of folders, `{jpg,png}` either;
`./` and `//` say nothing. What comes before the first of them is a plain path, as is the root.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from maskmatch.data.decoding.files import IMAGE_SUFFIXES

_SPECIAL = "*?[{"


def is_pattern(name: str) -> bool:
    """Whether an option names files by a pattern."""
    return any(character in name for character in _SPECIAL)


class Match(NamedTuple):
    """What the special characters of a pattern stand for in a path; the path's suffix does not count."""

    wildcards: tuple[str, ...]
    """One text for each wildcard (neighbours in a name are one); of `**/` without the last slash."""
    braces: tuple[str, ...]
    """One text for each of `Pattern.braces`."""
    below: str
    """The path below `Pattern.folder`."""

    @property
    def name(self) -> str:
        """The wildcards' texts as one path."""
        return "/".join(self.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """The wildcards' texts, folder by folder; a `**/` that is no folder is left out."""
        return tuple(part for text in self.wildcards for part in text.split("/") if part)


class Pattern:
    """A pattern below a root, or anywhere where it is absolute."""

    def __init__(self, root: Path, text: str) -> None:
        self.text = text
        text = re.sub(r"(?<=.)(/\.?)+$", "", text)  # at the end these say nothing either
        fixed = _fixed(root, text)
        self.folder = root / text[:fixed]
        """Where it begins to vary."""
        self._prefix = _absolute(self.folder).rstrip("/") + "/"
        self._plain = list(_alternatives(text[fixed:]))
        reader = _Reader()
        self._expression = re.compile(reader.expression(text[fixed:], begins=True, outermost=True), re.DOTALL)
        self._counts = [choices != {""} for choices in reader.braces]  # those of suffixes do not
        self.braces = [choices for choices in reader.braces if choices != {""}]
        """The choices of each brace."""
        self.kinds = reader.kinds
        """`**/`, `*` or `?` (as which `[0-3]` counts) for each wildcard."""

    def files(self, suffixes: Collection[str]) -> list[Path]:
        """The files that it matches and whose suffix, in lower case, is one of `suffixes`; sorted."""
        return [path for path in self._found(self._plain, suffixes) if self.match(path)]

    def files_of_any_suffix(self, suffixes: Collection[str]) -> list[Path]:
        """`files` as if the pattern named no suffix."""
        stems = [f"{one.removesuffix(_suffix(one))}.*" if _suffix(one) else one for one in self._plain]
        return self._found(stems, suffixes)

    @property
    def suffixes(self) -> set[str]:
        """The suffixes that it names, in lower case."""
        return {_suffix(one).lower() for one in self._plain if not is_pattern(_suffix(one))} - {""}

    def match(self, path: Path) -> Match | None:
        """What it stands for in a path; None where it does not match."""
        below = self._below(path)
        found = self._expression.fullmatch(below) if below else None
        if below is None or found is None:
            return None
        stem = len(below) - len(Path(below).suffix)

        def texts(kind: str) -> list[tuple[int, str]]:
            spans = [(name, found.span(name)) for name in self._expression.groupindex if name.startswith(kind)]
            return [(start, below[start : min(end, stem)]) for _, (start, end) in spans]

        braces = [text for (_, text), counts in zip(texts("brace"), self._counts, strict=True) if counts]
        wildcards = [text.removesuffix("/") for start, text in texts("wildcard") if 0 <= start <= stem]
        return Match(tuple(wildcards), tuple(braces), below[:stem])

    def has_place_for(self, below: str) -> bool:
        """Whether it would match a file of this path below the folder, given the right suffix."""
        named = {_suffix(one) for one in self._plain}
        suffixes = {each for one in named for each in (IMAGE_SUFFIXES if is_pattern(one) else [one])}
        return any(self._expression.fullmatch(below + suffix) for suffix in suffixes)

    def below(self, path: Path) -> str | None:
        """The path below the folder, without its suffix; None for one elsewhere."""
        below = self._below(path)
        return below and below[: len(below) - len(Path(below).suffix)]

    def _below(self, path: Path) -> str | None:
        absolute = _absolute(path)
        return absolute[len(self._prefix) :] if absolute.startswith(self._prefix) else None

    def _found(self, plain: list[str], suffixes: Collection[str]) -> list[Path]:
        names = {name for one in plain for name in _names(self.folder, one.split("/"))}
        paths = (self.folder / name for name in sorted(names))
        return [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and all below it, each with the names of its files, through links too.

    Hidden folders are left out, and links to a folder that they lie in.
    """
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith(".") and not _returns(Path(place, name)))
        yield Path(place), sorted(names)


def _returns(folder: Path) -> bool:
    """Whether a folder is a link to one that it lies in, which would have no end."""
    return folder.is_symlink() and folder.resolve() in {above.resolve() for above in folder.absolute().parents}


def _names(folder: Path, parts: list[str]) -> Iterator[str]:
    """As glob.glob, which would go round in links that return; `parts` are those of the pattern between slashes."""
    if "**" not in parts:
        yield from glob.glob("/".join(parts), root_dir=folder)
        return
    at = parts.index("**")
    rest = parts[at + 1 :] or ["*"]
    for head in glob.glob("/".join([*parts[:at], ""]), root_dir=folder) if at else [""]:
        for place, _ in walk(folder / head):
            above = "" if place == folder else place.relative_to(folder).as_posix() + "/"
            yield from (above + name for name in _names(place, rest))


def _fixed(root: Path, text: str) -> int:
    """How much of a pattern is a plain path: its first folders, also one that is called `photos [2024]`."""
    fixed = 0
    for slash in re.finditer("/", text):
        name = text[fixed : slash.start()]
        if is_pattern(name) and (set("*?{") & set(name) or not (root / text[: slash.start()]).is_dir()):
            break
        fixed = slash.end()
    return fixed


def _absolute(path: Path) -> str:
    """Without `..`, links as they are, with slashes on every system."""
    return os.path.abspath(path).replace(os.sep, "/")


def _suffix(pattern: str) -> str:
    return Path(pattern).suffix


class _Brace(NamedTuple):
    start: int
    end: int
    choices: list[str]


def _brace(text: str, start: int) -> _Brace | None:
    """The brace that begins here; one without a comma is plain text, as in a shell."""
    depth, begun, choices = 0, start + 1, list[str]()
    for at in range(start, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
        if (text[at] == "," and depth == 1) or depth == 0:
            choices.append(text[begun:at])
            begun = at + 1
        if depth == 0:
            return _Brace(start, begun, choices) if len(choices) > 1 else None
    return None


def _alternatives(text: str) -> Iterator[str]:
    """`a.{b,c}` -> `a.b`, `a.c`, as `glob` reads them."""
    for start, character in enumerate(text):
        if character == "{" and (brace := _brace(text, start)):
            for choice in brace.choices:
                yield from _alternatives(text[:start] + choice + text[brace.end :])
            return
    yield "/".join(part for part in text.split("/") if part not in ("", "."))


class _Reader:
    """Turns a pattern into a regular expression with a group for every wildcard and every outer brace."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.braces: list[frozenset[str]] = []
        self._wildcards = 0

    def expression(self, text: str, *, begins: bool, outermost: bool) -> str:
        """`begins` says whether a name begins with the text, `outermost` whether it is in no brace."""
        parts: list[str] = []
        at = 0
        while at < len(text):
            begins = begins if at == 0 else text[at - 1] == "/"
            brace = _brace(text, at) if text[at] == "{" else None
            if begins and (nothing := re.compile(r"\./|/").match(text, at)):
                at = nothing.end()
            elif begins and (folders := re.compile(r"(\*\*/)+").match(text, at)):
                parts.append(self._wildcard("**/", "(?:[^/]+/)*"))
                at = folders.end()
            elif begins and text[at:] == "**":  # everything below
                parts += [self._wildcard("**/", "(?:[^/]+/)*"), self._wildcard("*", "[^/]+")]
                at = len(text)
            elif brace:
                parts.append(self._either(text, brace, begins=begins, outermost=outermost))
                at = brace.end
                if text.startswith("/", at):  # which says nothing after an empty choice
                    parts.append(r"(?:/|(?<=/)|\A)")
                    at += 1
            elif run := _run(text, at):
                kind = "*" if "*" in run else "?"
                counts = not (outermost and "." in text[text.rfind("/") + 1 : at] and "." not in text[at:])
                parts.append(self._wildcard(kind if counts else "", "".join(map(_characters, run))))
                at += len("".join(run))
            else:
                parts.append(re.escape(text[at]))
                at += 1
        return "".join(parts)

    def _wildcard(self, kind: str, expression: str) -> str:
        self.kinds += [kind] if kind else []
        self._wildcards += 1
        return f"(?P<wildcard{self._wildcards}>{expression})"

    def _either(self, text: str, brace: _Brace, *, begins: bool, outermost: bool) -> str:
        opening = "(?:"
        if outermost:
            opening = f"(?P<brace{len(self.braces)}>"
            self.braces.append(frozenset(_without_suffix(text, brace)))
        choices = (self.expression(choice, begins=begins, outermost=False) for choice in brace.choices)
        return f"{opening}{'|'.join(choices)})"


def _run(text: str, at: int) -> list[str]:
    """The wildcards within a name that begin here, one after the other."""
    run: list[str] = []
    while token := re.compile(r"\*+|\?|\[!?\]?[^/\]]*\]").match(text, at):
        run.append(token.group())
        at = token.end()
    return run


def _characters(wildcard: str) -> str:
    """A wildcard within a name as a regular expression."""
    if wildcard.startswith("["):
        return "(?!/)" + fnmatch.translate(wildcard)[len("(?s:") : -len(r")\Z")]  # which knows what a `[z-a]` is
    return "[^/]" if wildcard == "?" else "[^/]*"


def _without_suffix(text: str, brace: _Brace) -> Iterator[str]:
    """A brace's choices, of those at the end of a name what comes before the suffix."""
    before, after = text[: brace.start].rpartition("/")[2], text[brace.end :]
    for choice in (plain for offered in brace.choices for plain in _alternatives(offered)):
        if any(character in after for character in "/.*"):
            yield choice
        elif "." in choice:
            yield choice.rpartition(".")[0]
        else:
            yield "" if "." in before else choice
