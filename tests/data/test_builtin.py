"""The built-in data set."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_dataset, load_dataset
from maskmatch.data.listing import builtin


def digest(index: int) -> str:
    image, mask = builtin.draw(index)
    return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


def test_an_image_depends_on_its_index_alone() -> None:
    np.random.seed(1)
    first = [digest(index) for index in (3, 4)]
    np.random.seed(2)
    assert [digest(index) for index in (4, 3)] == first[::-1]


def test_images_differ_and_hold_what_they_promise() -> None:
    assert len({digest(index) for index in range(30)}) == 30
    masks = [builtin.draw(index)[1] for index in range(60)]
    labeled = np.unique(np.stack(masks[: builtin.PARTS["labeled"]]))
    assert labeled.tolist() == list(range(len(builtin.CLASS_NAMES)))
    share = np.bincount(np.stack(masks).ravel(), minlength=6) / np.stack(masks).size
    assert share.min() > 0.02
    assert len(builtin.PALETTE) == len(builtin.CLASS_NAMES)


def test_paths_are_thin() -> None:
    """No point of a path is far from its border, apart from crossings."""
    for index in range(20):
        path = np.pad(builtin.draw(index)[1] == builtin.PATH, 1)
        inner = path.copy()
        for _ in range(3):  # eroded by a cross three times, nothing of a line of up to 6 pixels stays
            edge = inner[1:-1, 1:-1] & inner[2:, 1:-1] & inner[:-2, 1:-1] & inner[1:-1, 2:] & inner[1:-1, :-2]
            inner = np.pad(edge, 1)
        assert inner.sum() < 0.15 * path.sum()


@pytest.mark.usefixtures("small_builtin")
def test_written_as_a_folder_with_disjoint_parts(tmp_path: Path) -> None:
    root = tmp_path / "new" / "place"
    dataset = load_dataset(DataConfig(name="builtin", root=str(root)), supervised_only=False)
    check_dataset(dataset, supervised_only=False)
    parts = {
        "labeled": dataset.labeled,
        "unlabeled": dataset.unlabeled,
        "val": dataset.val,
        "test": dataset.test,
    }
    assert {name: len(pairs) for name, pairs in parts.items()} == builtin.PARTS
    images = [pair.image for pairs in parts.values() for pair in pairs]
    assert len(set(images)) == len(images)
    train = (root / "splits/train.txt").read_text()
    assert train == (root / "splits/labeled.txt").read_text() + (root / "splits/unlabeled.txt").read_text()
    image, mask = builtin.draw(len(dataset.labeled))
    np.testing.assert_array_equal(np.asarray(Image.open(root / "images/0004.png")), image)
    with Image.open(root / "masks/0004.png") as stored:
        assert stored.mode == "P"
        np.testing.assert_array_equal(np.asarray(stored), mask)
        np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), builtin.PALETTE[mask])
    as_folder = DataConfig(
        name="folder",
        root=str(root),
        labeled="splits/labeled.txt",
        unlabeled="splits/unlabeled.txt",
        val="splits/val.txt",
    )
    assert load_dataset(as_folder, supervised_only=False).class_names == builtin.CLASS_NAMES


@pytest.mark.usefixtures("small_builtin")
def test_drawn_once_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = builtin.ensure_builtin()
    assert root == tmp_path / "maskmatch" / f"builtin-v{builtin.VERSION}"
    monkeypatch.setattr(builtin, "draw", lambda index: pytest.fail("drawn again"))
    assert builtin.ensure_builtin() == root


def test_two_processes_may_draw_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from maskmatch.data.listing import builtin;"
        "builtin.PARTS = {'labeled': 20, 'unlabeled': 20, 'val': 2, 'test': 2};"
        "print(builtin.ensure_builtin(sys.argv[1]))"
    )
    target = tmp_path / "here"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(target)]) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert len(list((target / "images").iterdir())) == 44
    for index in (0, 43):  # as this process draws them
        image, mask = builtin.draw(index)
        np.testing.assert_array_equal(np.asarray(Image.open(target / f"images/{index:04d}.png")), image)
        np.testing.assert_array_equal(np.asarray(Image.open(target / f"masks/{index:04d}.png")), mask)


@pytest.mark.usefixtures("small_builtin")
def test_an_interrupted_drawing_leaves_nothing_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = builtin.draw

    def fail(index: int) -> tuple[np.ndarray, np.ndarray]:
        if index == 7:
            raise KeyboardInterrupt
        return draw(index)

    monkeypatch.setattr(builtin, "draw", fail)
    with pytest.raises(KeyboardInterrupt):
        builtin.ensure_builtin(str(tmp_path / "here"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(builtin, "draw", draw)
    builtin.ensure_builtin(str(tmp_path / "here"))


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"data\.root: expected an empty folder"):
        builtin.ensure_builtin(str(tmp_path))
    with pytest.raises(UserError, match=r"data\.root: cannot make .*mine\.txt"):
        builtin.ensure_builtin(str(tmp_path / "mine.txt" / "below"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
