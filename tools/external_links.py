"""Lists the links of README and docs to other sites and asks for each; exit code 1 where one does not answer.

python tools/external_links.py [--list]
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((https?://[^)\s]+)\)")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SECONDS = 20


def problem(link: str) -> str | None:
    """Why a page cannot be had; None where it can."""
    request = urllib.request.Request(link, headers={"User-Agent": "maskmatch's check of its links"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def main() -> int:
    links = sorted({link for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))})
    failed = 0
    for link in links:
        found = None if "--list" in sys.argv[1:] else problem(link)
        print(link if found is None else f"{link}: {found}")
        failed += found is not None
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
