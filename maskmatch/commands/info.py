"""What this installation is made of: the text to paste into a bug report.

Run as `python -m maskmatch.info`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from maskmatch.commands.command_line import run
from maskmatch.common.options import Parser
from maskmatch.common.version import PACKAGE_FOLDER
from maskmatch.run_files.versions import environment


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    return run(_print_report, argv)


def _print_report(argv: Sequence[str]) -> None:
    Parser(prog="maskmatch.info", description="Print versions, backends and devices, for a bug report.").parse_args(
        list(argv)
    )
    sections = environment()
    sections["platform"] |= {"interpreter": sys.executable, "installed in": str(PACKAGE_FOLDER)}
    width = max(len(name) for section in sections.values() for name in section)
    for title, section in sections.items():
        print(title)
        for name, value in section.items():
            print(f"  {name:<{width}}  {value}")
