"""What may change between a checkpoint and the run that goes on from it, and what not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from maskmatch.common.errors import UserError
from maskmatch.config import DataConfig
from maskmatch.data import check_fingerprint, fingerprint, load_dataset


def test_the_data_may_move(folder: DataConfig, tmp_path: Path) -> None:
    before = fingerprint(load_dataset(folder, supervised_only=False), seed=1, global_batch=8)
    shutil.move(str(folder.root), tmp_path / "elsewhere")
    folder.root = str(tmp_path / "elsewhere")
    check_fingerprint(before, fingerprint(load_dataset(folder, supervised_only=False), seed=1, global_batch=8))


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ([0, 1, 2], {"seed": 2}, r"train\.seed: expected the checkpoint's 1, got 2"),
        (
            [0, 1, 2],
            {"global_batch": 16},
            r"train\.batch_size times train\.accumulate times processes: expected the checkpoint's 8, got 16",
        ),
        ([0, 1], {}, r"data\.labeled: expected the checkpoint's list of 3 labelled images, got 2"),
        ([0, 2, 1], {}, r"data\.labeled: .* 3 labelled images, got others or in another order"),
        ([0, 1, 3], {}, r"data\.labeled: .* 3 labelled images, got others or in another order"),
    ],
)
def test_a_difference_is_named(folder: DataConfig, lines: list[int], options: dict[str, int], message: str) -> None:
    usual = {"seed": 1, "global_batch": 8}
    before = fingerprint(load_dataset(folder, supervised_only=False), **usual)
    images = {0: "0.png", 1: "1.jpg", 2: "2.png", 3: "3.jpg"}
    text = "".join(f"images/{images[i]} masks/{i}.png\n" for i in lines)
    (Path(str(folder.root)) / "labeled.txt").write_text(text)
    after = fingerprint(load_dataset(folder, supervised_only=False), **(usual | options))
    with pytest.raises(UserError, match=message):
        check_fingerprint(before, after)
