"""What a run's batches follow from besides its options, in few words: so that no other data resume it unnoticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from maskmatch.common.errors import UserError
from maskmatch.data.checking.stored_values import MaskValues
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.listing.class_names import first_moved

_LISTS = {"labeled": "labelled", "unlabeled": "unlabelled"}


def fingerprint(
    dataset: Dataset, *, seed: int, global_batch: int, masks: Mapping[str, Sequence[MaskValues]] | None = None
) -> dict[str, Any]:
    """File lists, masks, classes, seed and global batch (labelled images a step, over all processes), for a checkpoint.

    Paths count relative to the data set's root, so that the data may move; the number of processes may change. `masks`
    are those of the labelled and the validation images; what their pixels mean counts, not how they are stored.
    """
    found: dict[str, Any] = {"seed": seed, "global_batch": global_batch, "class_names": list(dataset.class_names)}
    if masks is not None:
        found["masks"] = {part: _digest_of_masks(known) for part, known in masks.items()}
    for part in _LISTS:
        pairs = getattr(dataset, part)
        found[part] = {"images": len(pairs), "sha256": _digest(pairs, dataset)}
    return found


def check_fingerprint(saved: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Compare a checkpoint's fingerprint with the present one; what an older checkpoint does not have is passed over.

    Returns lines on what may differ, and does.

    Raises UserError that names what differs and may not, with both values.
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
    if moved := first_moved(found["class_names"], saved.get("class_names", [])):
        name, now, then = moved
        raise UserError(
            f"data.class_names: expected the checkpoint's order, with {name} as class {then}, got it as {now}"
        )
    was, now = saved.get("masks", {}), found.get("masks", {})
    changed = [part for part in was if part in now and was[part] != now[part]]
    if "labeled" in changed:
        raise UserError(
            "data.labeled: expected the checkpoint's masks, got others in the same files (--init_from starts a new run "
            "from this one's network)"
        )
    return [f"the masks of data.{part} are others than before: earlier figures are of those" for part in changed]


def _digest_of_masks(masks: Sequence[MaskValues]) -> str:
    return hashlib.sha256("".join(mask.digest for mask in masks).encode()).hexdigest()


def _digest(pairs: Sequence[Pair], dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        for path in pair:
            if path is not None and path.is_relative_to(dataset.root):
                path = path.relative_to(dataset.root)
            digest.update(os.fsencode("" if path is None else path.as_posix()) + b"\0")
    return digest.hexdigest()
