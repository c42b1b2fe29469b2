"""What a run's batches follow from besides its options, in few words: so that no other data resume it unnoticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from maskmatch.data.dataset import Dataset, Pair
from maskmatch.errors import UserError

_LISTS = {"labeled": "labelled", "unlabeled": "unlabelled"}


def fingerprint(dataset: Dataset, *, seed: int, global_batch: int) -> dict[str, Any]:
    """File lists, seed and global batch (labelled images a step, over all processes), for a checkpoint.

    Paths count relative to the data set's root, so that the data may move; the number of processes may change.
    """
    found: dict[str, Any] = {"seed": seed, "global_batch": global_batch}
    for part in _LISTS:
        pairs = getattr(dataset, part)
        found[part] = {"images": len(pairs), "sha256": _digest(pairs, dataset)}
    return found


def check_fingerprint(saved: dict[str, Any], found: dict[str, Any]) -> None:
    """Compare a checkpoint's fingerprint with the present one.

    Raises UserError that names what differs, with both values.
    """
    for name, words in {
        "seed": "train.seed",
        "global_batch": "train.batch_size times train.accumulate times processes",
    }.items():
        if saved[name] != found[name]:
            raise UserError(f"{words}: expected the checkpoint's {saved[name]}, got {found[name]}")
    for part, words in _LISTS.items():
        was, now = saved[part], found[part]
        if was != now:
            other = "others or in another order" if was["images"] == now["images"] else str(now["images"])
            raise UserError(
                f"data.{part}: expected the checkpoint's list of {was['images']} {words} images, got {other}"
            )


def _digest(pairs: Sequence[Pair], dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        for path in pair:
            if path is not None and path.is_relative_to(dataset.root):
                path = path.relative_to(dataset.root)
            digest.update(os.fsencode("" if path is None else path.as_posix()) + b"\0")
    return digest.hexdigest()
