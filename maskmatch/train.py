"""`python -m maskmatch.train`: train a student and its teacher."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from maskmatch.cli import parse_train, run


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    return run(_train, argv)


def _train(argv: Sequence[str]) -> None:
    config = parse_train(argv)
    from maskmatch.training import (
        train,
    )  # torch takes seconds to import: a wrong option should not have to wait

    train(config)


if __name__ == "__main__":
    sys.exit(main())
