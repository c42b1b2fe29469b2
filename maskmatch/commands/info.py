"""What this installation is made of: the text to paste into a bug report.

Run as `python -m maskmatch.info`; with `--report` no path in it says whose machine it is.
"""

from __future__ import annotations

import getpass
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from maskmatch.commands.command_line import run
from maskmatch.common.options import Parser, add_switch
from maskmatch.common.version import PACKAGE_FOLDER
from maskmatch.run_files.versions import environment

PATH = re.compile(r"""(?<![\w.~/-])~?/(?!/)[^\s:;,'"()\[\]]+""")
"""A path in a text. One with spaces is cut at them, unless it begins with a folder that is known."""
KEPT = 2
"""Parts at the end of a path that say which file it is, and not where."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    return run(_print_report, argv)


def _print_report(argv: Sequence[str]) -> None:
    parser = Parser(prog="maskmatch.info", description="Print versions, backends and devices, for a bug report.")
    add_switch(parser, "--report", "Leave out of every path where it leads through: to be shown to others.")
    public = parser.parse_args(list(argv)).report
    sections = environment()
    sections["platform"] |= {"interpreter": sys.executable, "installed in": str(PACKAGE_FOLDER)}
    width = max(len(name) for section in sections.values() for name in section)
    for title, section in sections.items():
        print(title)
        for name, value in section.items():
            print(f"  {name:<{width}}  {without_places(value) if public else value}")


def without_places(text: str) -> str:
    """A text whose absolute paths are their last parts alone, behind `~/` below the home folder and `.../` elsewhere.

    Parts that are the user's or the machine's name are left out too.
    """
    names = {Path.home().name, platform.node(), platform.node().split(".")[0], _user()}
    homes = {Path.home(), Path.home().resolve()}
    known = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent.parent, PACKAGE_FOLDER.parent}
    for folder in sorted(homes | known, key=lambda folder: len(str(folder)), reverse=True):  # may hold spaces
        if folder in (Path(), Path("/")):
            continue
        called = "~" if any(folder.is_relative_to(home) for home in homes) else "..."
        called += f"/{folder.name}" if folder.name == "site-packages" else ""
        text = re.sub(rf"{re.escape(str(folder))}(?=/|$)", called, text)

    def shortened(found: re.Match[str]) -> str:
        start, *parts = found[0].split("/")
        kept = [part for part in parts[-KEPT:] if part and part not in names]
        return "/".join([start or "...", *kept])

    return PATH.sub(shortened, text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return ""
