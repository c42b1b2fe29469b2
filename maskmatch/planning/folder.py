"""What a folder holds: where its images and masks lie, which mask is whose, and which parts it already has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maskmatch.common.errors import UserError
from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import IMAGE_SUFFIXES
from maskmatch.data.listing.leftovers import leftovers, polygons
from maskmatch.data.listing.lists import DRAW_POLYGONS, can_be_listed
from maskmatch.data.listing.pairing import Pairing
from maskmatch.data.listing.patterns import is_pattern, walk

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "photo", "pictures", "JPEGImages", "img_dir", "frames")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "SegmentationClass", "SegmentationClassAug"),
    *("ann_dir", "segmentations", "segmentation", "ground_truth", "groundtruth", "gt", "targets"),
)
MASK_WORDS = ("mask", "masks", "label", "labels", "seg", "segmentation", "gt", "annotation", "labelTrainIds", "L")
IMAGE_WORDS = ("image", "img", "rgb", "photo", "sat", "frame", "leftImg8bit")
JOINTS = "_-. "
NAMED_BESIDE = ("_masks", "_mask", "_labels", "_label", "_annotations", "_gt", "_seg", "annot")
"""What a folder of masks may be called after that of its images, as train_masks/ after train/."""
UNLABELED_FOLDERS = ("unlabeled", "unlabelled", "unlabeled_images", "unlabelled_images")


MASK_SUFFIXES, PHOTO_SUFFIXES = (".png", ".bmp"), (".jpg", ".jpeg")
"""Of masks that lie beside photographs of the same names."""


class Found(NamedTuple):
    """The pairs of a folder, and by which patterns."""

    pairing: Pairing
    labeled: list[Pair]
    unlabeled: list[Pair]
    notes: list[str]  # what the patterns leave out

    @property
    def images(self) -> str:
        """The pattern of the images."""
        return self.pairing.images.text

    @property
    def masks(self) -> str:
        """The pattern of the masks."""
        return self.pairing.masks.text


def find(root: Path, images: str | None = None, masks: str | None = None) -> Found:
    """The images and masks under `root`, by the user's patterns or by the one of the usual ways that pairs the most.

    Raises UserError, in one line, where no mask belongs to an image.
    """
    if not root.is_dir():
        raise UserError(f"data.root: expected a folder, found none: {root}")
    files = image_files(root)
    if not files:
        raise UserError(f"data.root: expected images ({_suffixes()}), found none: {root}")
    given = [(images or "images/**/*", masks or "masks/**/*")] if images or masks else None
    best, fault = _best(root, given or candidates(files))
    if best is None and not given and not fault:
        best, fault = _best(root, _by_suffixes(files))
    if best is None:
        raise fault or UserError(_nothing(root, files, given))
    return best._replace(
        unlabeled=[*best.unlabeled, *_unlabeled_elsewhere(root, files, best)],
        notes=[*best.notes, *leftovers(best.pairing)],
    )


def _best(root: Path, ways: Iterable[tuple[str, str]]) -> tuple[Found | None, UserError | None]:
    """What the way finds that pairs the most, and the first fault, such as two masks for an image."""
    best: Found | None = None
    fault: UserError | None = None
    for one in ways:
        try:
            found = _paired(root, *one)
        except UserError as error:  # another way may be right
            fault = fault or error
            continue
        if found.labeled and (best is None or len(found.labeled) > len(best.labeled)):
            best = found
    return best, fault


def image_files(root: Path) -> list[Path]:
    """Every image or mask under the root by its path below it, sorted; what is hidden is not looked at."""
    found = []
    for folder, names in walk(root):
        found += [folder.relative_to(root) / name for name in names if _is_image(name)]
    return found


def candidates(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The patterns, of images and of masks, that folders and names speak for; `files` are paths below the root."""
    folders = {folder for file in files for folder in file.parent.parts if not is_pattern(folder)}
    of_images, of_masks = (
        [name for usual in those for name in sorted(folders) if name.lower() == usual.lower()]
        for those in (IMAGE_FOLDERS, MASK_FOLDERS)
    )
    for masks in of_masks:
        forms = _forms(_names(files, masks), MASK_WORDS)
        for images in of_images:
            inside = _inside(files, images, masks)
            for form in forms:
                for image_form in _forms(_names(files, images), IMAGE_WORDS):
                    yield f"{inside}{images}/**/{image_form}", f"{inside}{masks}/**/{form}"
        for form in forms:  # images/ is missing: they lie beside the folder of masks
            yield "**/*", f"**/{masks}/{form}"
    for masks in sorted(folders):
        for images in (masks[: -len(end)] for end in NAMED_BESIDE if masks.lower().endswith(end)):
            if images in folders:
                for form in _forms(_names(files, masks), MASK_WORDS):
                    yield f"**/{images}/**/*", f"**/{masks}/**/{form}"
    names = [file.stem for file in files]
    for form in _forms(names, MASK_WORDS)[1:]:
        for image_form in _forms(names, IMAGE_WORDS):
            yield f"**/{image_form}", f"**/{form}"


def _by_suffixes(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """`1.jpg` and its mask `1.png` beside it: a guess, for folders that nothing else speaks for."""
    suffixes = sorted({file.suffix for file in files})
    for mask in (suffix for suffix in suffixes if suffix.lower() in MASK_SUFFIXES):
        for image in (suffix for suffix in suffixes if suffix.lower() in PHOTO_SUFFIXES):
            yield f"**/*{image}", f"**/*{mask}"


def _paired(root: Path, images: str, masks: str) -> Found:
    pairing = Pairing(root, images, masks)
    pairs = [pairing.pair(image) for image in pairing.image_files]
    notes = [f"left out, as no list can hold its name: {pair.image}" for pair in pairs if not _has_line(pair)]
    pairs = [pair for pair in pairs if _has_line(pair)]
    labeled = [pair for pair in pairs if pair.mask]
    pairing.refuse_shared_masks(labeled)
    return Found(pairing, labeled, [pair for pair in pairs if not pair.mask], notes)


def _unlabeled_elsewhere(root: Path, files: Sequence[Path], found: Found) -> list[Pair]:
    """Images of a folder that says by its name that they have no masks, where the patterns do not reach it."""
    known = {path for pair in (*found.labeled, *found.unlabeled) for path in pair} | {*found.pairing.mask_files}
    named = (root / file for file in files if {part.lower() for part in file.parent.parts} & {*UNLABELED_FOLDERS})
    return [pair for pair in (Pair(image, None) for image in named if image not in known) if _has_line(pair)]


def _has_line(pair: Pair) -> bool:
    """Whether the names of a pair can stand in a list."""
    return all(can_be_listed(path.name) for path in pair if path)


def _nothing(root: Path, files: Sequence[Path], given: Sequence[tuple[str, str]] | None) -> str:
    """Why no image has a mask."""
    if given:
        images, masks = given[0]
        tried = f"{images} (data.images) with {masks} (data.masks)"
    else:
        tried = (
            f"folders such as images/ or photos/ with masks/ or labels/ of the same names, train/ with train_masks/, "
            f"and names that end in _mask, _label or _seg, of {len(files)} images such as {files[0]}"
        )
    pairing = Pairing(root, *(given[0] if given else ("**/*", "masks/**/*")))
    if drawn := polygons(pairing):
        tried += f"; there are polygons in JSON, such as {drawn[0]}{DRAW_POLYGONS}"
    elif boxes := [file for file in files if (root / file).with_suffix(".txt").is_file() or _yolo(root, file)]:
        tried += f"; texts such as {boxes[0].stem}.txt (YOLO's boxes or polygons) are no masks"
    elif not given:
        tried += "; --data.images and --data.masks name them by patterns (docs/data.md)"
    return f"data.root: expected images with masks, found no mask of an image by {tried}: {root}"


def _yolo(root: Path, image: Path) -> bool:
    """Whether a text lies where YOLO has those of an image: images/1.jpg, labels/1.txt."""
    parts = ["labels" if part == "images" else part for part in image.parent.parts]
    return (root.joinpath(*(parts or ["labels"])) / f"{image.stem}.txt").is_file()


def _inside(files: Sequence[Path], images: str, masks: str) -> str:
    """`**/` where one of these folders lies deeper than the root, as in train/images."""
    places = {file.parts.index(name) for file in files for name in (images, masks) if name in file.parent.parts}
    return "" if places == {0} else "**/"


def _names(files: Sequence[Path], folder: str) -> list[str]:
    return [file.stem for file in files if folder in file.parent.parts]


def _forms(names: Sequence[str], words: Sequence[str]) -> list[str]:
    """Patterns of names: any, and those with a word behind or before them, where some names have it."""
    ends = [f"{joint}{word}" for word in words for joint in JOINTS]
    starts = [f"{word}{joint}" for word in words for joint in ("", *JOINTS)]
    return [
        "*",
        *(f"*{end}.*" for end in ends if any(name.endswith(end) and name != end for name in names)),
        *(f"{start}*" for start in starts if any(name.startswith(start) and name != start for name in names)),
    ]


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
