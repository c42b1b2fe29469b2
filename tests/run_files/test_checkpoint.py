"""Checkpoints that survive: a full disk, a kill at any point of the writing, damage, another network."""

import functools
import os
import subprocess

import pytest
import torch
from torch import nn

from maskmatch.common.errors import UserError
from maskmatch.run_files import checkpoint


def networks(width=3):
    return nn.Linear(width, 2), nn.Linear(width, 2)


def state(step, best=0.5):
    return checkpoint.State(step, {"state": {}, "param_groups": []}, {}, best, {"train": {"seed": 0}})


def save(folder, step, *, best=False, pair=None, keep=1):
    checkpoint.save(folder, *(pair or networks()), state(step), best=best, keep=keep)


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


def test_the_last_few_are_kept(tmp_path):
    save(tmp_path, 1, best=True, keep=2)
    for step in (2, 3, 4):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == {"best", "last", "step_1", "step_3", "step_4"}


def test_the_sums_are_those_of_sha256sum(tmp_path):
    save(tmp_path, 1)
    done = subprocess.run(["sha256sum", "-c", "sha256"], cwd=tmp_path / "last", capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 3


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
    assert "\n" not in str(error.value) and name in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "last", *networks())


def test_another_network_is_refused(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(UserError, match="cannot load the checkpoint") as error:
        checkpoint.load(tmp_path / "last", *networks(width=5))
    assert "\n" not in str(error.value)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["student.safetensors", "teacher.safetensors", "state.pt"])
def test_a_damaged_last_falls_back_to_the_one_before(tmp_path, name):
    pair = networks()
    save(tmp_path, 1, best=True, keep=3)
    save(tmp_path, 2, pair=pair, keep=3)
    save(tmp_path, 3, keep=3)
    flip_a_bit(tmp_path / "step_3" / name)
    loaded = networks()
    found, notes = checkpoint.load_last(tmp_path, *loaded)
    assert found == state(2) and torch.equal(loaded[0].weight, pair[0].weight)
    (note,) = notes
    assert "step_3" in note and name in note and "going on from step 2" in note


def test_where_every_checkpoint_is_damaged_nothing_starts_over(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, keep=2)
        flip_a_bit(tmp_path / f"step_{step}" / "state.pt")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be loaded: .*step_2.*step_1"):
        checkpoint.load_last(tmp_path, *networks())
    assert checkpoint.load_last(tmp_path / "nothing", *networks()) == (None, [])


def test_a_run_that_was_taken_back_goes_on_from_there(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    checkpoint.take_back(tmp_path, 1)
    found, notes = checkpoint.load_last(tmp_path, *networks())
    assert (found.step, notes) == (1, [])


class Killed(BaseException):
    """Ends the writing where it is raised, with no chance to clean up, as SIGKILL does."""


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_a_kill_at_any_call_of_the_writing(tmp_path, monkeypatch, again):
    """Whichever system call is the last one, a whole checkpoint is found, the old or the new one."""
    calls = ("open", "mkdir", "replace", "fsync", "symlink", "unlink", "rmdir")
    step, killed = (2 if again else 3), 0
    for last_call in range(1000):
        folder = tmp_path / str(last_call)
        old, new = networks(), networks()
        save(folder, 1, keep=2)
        save(folder, 2, best=True, pair=old, keep=2)
        count = 0

        def dying(call, *arguments, limit=last_call, **options):
            nonlocal count
            count += 1
            if count > limit:
                raise Killed
            return call(*arguments, **options)

        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, functools.partial(dying, getattr(os, name)))
            try:
                save(folder, step, best=True, pair=new, keep=2)
            except Killed:
                killed += 1
        loaded = networks()
        found, notes = checkpoint.load_last(folder, *loaded)
        assert notes == [] and found.step in (2, step)
        assert any(torch.equal(loaded[0].weight, pair[0].weight) for pair in (old, new))
        save(folder, step, best=True, pair=new, keep=2)  # and the run goes on
        assert checkpoint.load_last(folder, *networks())[0].step == step
        assert os.readlink(folder / "best") == f"step_{step}"
        assert not [name for name in names(folder) if name.startswith(".")]
        if count <= last_call:
            break
    assert killed > 10
