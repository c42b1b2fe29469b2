"""Links out of docs/ into the repository, for the site: what they lead to must exist, and there they are text.

A hook of mkdocs (mkdocs.yml). On GitHub the same links work as they stand; the site lies at no address that has them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with `[text](../FILE)` as `text`; FileNotFoundError, which ends the build, where there is none."""

    def text(found: re.Match[str]) -> str:
        if not (ROOT / found[2]).exists():
            raise FileNotFoundError(f"{page.file.src_uri}: there is no {found[2]}")
        return found[1]

    return OUTSIDE.sub(text, markdown)
