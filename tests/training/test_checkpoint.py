"""Checkpoints that survive: a full disk, a kill while writing, damage, another network."""

import os

import pytest
import torch
from torch import nn

from maskmatch.errors import UserError
from maskmatch.training import checkpoint


def networks(width=3):
    return nn.Linear(width, 2), nn.Linear(width, 2)


def state(step, best=0.5):
    return checkpoint.State(step, {"state": {}, "param_groups": []}, {}, best, {"train": {"seed": 0}})


def save(folder, step, *, best=False, pair=None):
    checkpoint.save(folder, *(pair or networks()), state(step), best=best)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_round_trip(tmp_path):
    pair = networks()
    save(tmp_path, 7, best=True, pair=pair)
    loaded = networks()
    found = checkpoint.load(tmp_path / "last", *loaded)
    assert found == state(7)
    for a, b in zip(pair, loaded, strict=True):
        assert torch.equal(a.weight, b.weight)


def test_only_what_a_link_points_at_is_kept(tmp_path):
    save(tmp_path, 1, best=True)
    for step in (2, 3, 4):
        save(tmp_path, step)
    assert names(tmp_path) == {"best", "last", "step_1", "step_4"}
    assert (os.readlink(tmp_path / "best"), os.readlink(tmp_path / "last")) == ("step_1", "step_4")


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 1, best=True)
    pair = networks()
    save(tmp_path, 1, pair=pair)
    loaded = networks()
    checkpoint.load(tmp_path / "best", *loaded)
    assert torch.equal(loaded[0].weight, pair[0].weight)
    assert names(tmp_path) == {"best", "last", "step_1"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch, call):
    pair = networks()
    save(tmp_path, 1, best=True, pair=pair)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match=r"step_2.*No space left on device.*the one before is intact"):
            save(tmp_path, 2, best=True)
    assert names(tmp_path) == {"best", "last", "step_1"}
    loaded = networks()
    assert checkpoint.load(tmp_path / "last", *loaded).step == 1
    assert torch.equal(loaded[0].weight, pair[0].weight)
    save(tmp_path, 2, best=True)
    assert os.readlink(tmp_path / "best") == "step_2"


def test_what_a_kill_left_behind_is_cleared(tmp_path):
    (tmp_path / ".step_1.tmp").mkdir()
    (tmp_path / ".step_1.tmp" / "student.safetensors").write_bytes(b"half")
    (tmp_path / "step_2").mkdir()  # renamed, but no link moved yet
    save(tmp_path, 2)
    assert names(tmp_path) == {"last", "step_2"}


@pytest.mark.parametrize("name", ["student.safetensors", "teacher.safetensors", "state.pt"])
def test_damage_is_one_clear_error(tmp_path, name):
    save(tmp_path, 1)
    path = tmp_path / "step_1" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot load the checkpoint .*last") as error:
        checkpoint.load(tmp_path / "last", *networks())
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "last", *networks())


def test_another_network_is_refused(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(UserError, match="cannot load the checkpoint") as error:
        checkpoint.load(tmp_path / "last", *networks(width=5))
    assert "\n" not in str(error.value)
