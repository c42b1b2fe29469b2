"""`python -m maskmatch.split`: choose the images to label, or pretend that few are labelled."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskmatch.commands.command_line import run
from maskmatch.common.errors import UserError
from maskmatch.config import Config, validate
from maskmatch.data.checking.preflight import check_pair, each
from maskmatch.data.checking.stored_values import faults
from maskmatch.data.dataset import Dataset, Pair
from maskmatch.data.decoding.files import reason
from maskmatch.data.listing.label_selection import Order, choose, count_of, spread
from maskmatch.data.listing.layouts import load_dataset
from maskmatch.data.listing.lists import format_list
from maskmatch.data.listing.overlap import distinct, shared
from maskmatch.run_files.config_file import config_parser, parse

DESCRIPTION = (
    "Write labeled.txt, unlabeled.txt and, with --val, val.txt: a choice of the images that data.labeled (or a folder) "
    "has masks for, in which every class is shown. The others, and those of data.unlabeled, are the unlabelled ones. "
    "Train with --data.split NAME."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the split that the command line asks for; returns the exit code."""
    return run(_split, argv)


def _split(argv: Sequence[str]) -> None:
    parser = config_parser("maskmatch.split", DESCRIPTION)
    parser.add_argument("--labeled", type=str, required=True, help="Images to label: a number, or a part such as 1/8.")
    parser.add_argument(
        "--val", type=str | None, default=None, help="How many of those to hold out, to choose models by; in val.txt."
    )
    parser.add_argument("--order", type=Order, default="even", help="Evenly spaced over the list, or random by --seed.")
    parser.add_argument("--seed", type=int, default=0, help="Of the random order.")
    parser.add_argument(
        "--output", type=str | None, default=None, help="New folder of the split; default splits/NAME under data.root."
    )
    options = parse(parser, argv)
    labeled, val, order, seed = (options.pop(name) for name in ("labeled", "val", "order", "seed"))
    if seed < 0:
        raise UserError(f"seed: expected at least 0, got {seed}")
    config = Config(**options)
    validate(config)
    dataset = load_dataset(config.data, supervised_only=False, incomplete=True)
    name = labeled.replace("/", "_") + (f"_seed{seed}" if order == "random" else "")
    folder = Path(config.output) if config.output else dataset.root / "splits" / name
    if folder.exists():
        raise UserError(f"output: expected a new folder, as nothing is overwritten, found {folder}")
    parts = make_split(dataset, labeled, val, order, seed)
    try:
        _write(folder, {part: format_list(pairs, dataset.root) for part, pairs in parts.items()})
    except OSError as error:
        raise UserError(f"output: cannot write to {folder}: {reason(error)}") from error
    print(", ".join(f"{len(pairs)} {part}" for part, pairs in parts.items()) + f" images: {folder}")
    alone = "" if parts["unlabeled"] else " --method.supervised_only true, as no image is left without a label"
    if config.output is None or alone:
        print(f"train with --data.split {name if config.output is None else folder}{alone}")


def make_split(dataset: Dataset, labeled: str, val: str | None, order: Order, seed: int) -> dict[str, list[Pair]]:
    """Part -> images. Of the `labeled` chosen ones `val` are held out; what is left still shows every class."""
    pool = _pool(dataset)
    shown = _classes_shown(dataset, pool)
    count = count_of(labeled, len(pool), "labeled")
    held_out = count_of(val, count, "val") if val else 0
    if held_out >= count:
        raise UserError(f"val: expected fewer than the {count} labelled images, got {held_out}")
    chosen = choose(shown, count - held_out, order, seed)
    rest = [i for i in range(len(pool)) if i not in set(chosen)]
    kept_out = sorted(rest[i] for i in spread(len(rest), held_out, order, seed)[:held_out])
    labeled_pairs, val_pairs = ([pool[i] for i in part] for part in (chosen, kept_out))
    elsewhere = [*labeled_pairs, *val_pairs, *dataset.val, *dataset.test]
    others = [Pair(image, dataset.truth.get(image)) for image, _ in dataset.unlabeled]
    left = distinct([*elsewhere, *pool, *others])[len(distinct(elsewhere)) :]
    given = {pair.image: pair for pair in (*dataset.unlabeled, *pool)}
    parts = {"labeled": labeled_pairs, "unlabeled": [given[pair.image] for pair in left]}
    return parts | ({"val": val_pairs} if held_out else {})


def _pool(dataset: Dataset) -> list[Pair]:
    """The labelled images, each once, and none that is measured on: or one list would tell of another."""
    pool = distinct(dataset.labeled)
    taken = {image for _, image in shared([*dataset.val, *dataset.test], pool)}
    left = [pair for pair in pool if pair.image not in taken]
    if dropped := len(dataset.labeled) - len(left):
        print(f"{dropped} labelled images are left out: they are there twice, or in val or test", file=sys.stderr)
    return left


def _classes_shown(dataset: Dataset, pool: Sequence[Pair]) -> np.ndarray:
    """bool [N, C], by the masks of the images."""
    shown = np.zeros((len(pool), dataset.num_classes), bool)
    masks = list(each(lambda pair: check_pair(pair, dataset), pool))
    if fault := next(faults(dataset, {"labeled": masks}), None):
        raise UserError(fault)
    for row, mask in zip(shown, masks, strict=True):
        classes = dataset.mask_table[mask.values]
        row[classes[classes < dataset.num_classes]] = True
    return shown


def _write(folder: Path, lists: dict[str, str]) -> None:
    """All lists or none: written beside their place and renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for part, text in lists.items():
            (beside / f"{part}.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
        beside.chmod(0o755)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
