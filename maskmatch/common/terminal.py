"""What is printed on a terminal, in which a user's names and paths stand as they are."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


def plain_console(**options: Any) -> Console:
    """A console that takes no text for markup (`[/unk]`), for an emoji (`:car:`) or for something to colour.

    `options` are those of rich's.
    """
    return Console(markup=False, emoji=False, highlight=False, **options)


def passing_progress(*, quiet: bool = False) -> Progress:
    """A progress bar on a terminal's stderr that is gone when it is done; nothing elsewhere, or where `quiet`."""
    console = plain_console(stderr=True)
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
