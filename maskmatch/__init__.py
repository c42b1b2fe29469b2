"""MaskMatch: semi-supervised semantic segmentation, with fused operators.

python -m maskmatch.train --fused       train
maskmatch.ops, maskmatch.nn             the operators on their own
maskmatch.method                        the method, for any training loop
maskmatch.load(RUN).predict(image)      what a run has learned, on an image
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskmatch.common.version import __version__

if TYPE_CHECKING:
    from maskmatch.inference.trained_model import load as load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` on first use: it brings torch along, which the command lines want only once they know their options."""
    if name == "load":
        from maskmatch.inference.trained_model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
