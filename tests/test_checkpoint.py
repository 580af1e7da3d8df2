import errno

import pytest
import torch

from clickwise import checkpoint
from clickwise.errors import CheckpointError
from clickwise.run.folder import remove_unfinished


def test_what_is_saved_is_loaded(tmp_path):
    content = {"model": {"w": torch.arange(6.0).view(2, 3)}, "step": 3, "list": [1, "two", None]}
    checkpoint.save(tmp_path / "a.pt", content)
    loaded = checkpoint.load(tmp_path / "a.pt")
    assert torch.equal(loaded["model"]["w"], content["model"]["w"]) and loaded["list"] == content["list"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_full_disk_leaves_the_older_file_whole(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "a.pt", {"step": 1})

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(tmp_path / "a.pt", {"step": 2})
    assert checkpoint.load(tmp_path / "a.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_best_is_another_name_of_last_until_last_moves_on(tmp_path):
    folder = checkpoint.CheckpointFolder(tmp_path)
    for step, best in ((1, True), (2, False), (3, True), (4, False)):
        folder.save_last({"step": step})
        if best:
            folder.mark_last_as_best()
    assert checkpoint.load(folder.best)["step"] == 3 and checkpoint.load(folder.last)["step"] == 4


def test_best_is_a_copy_where_a_file_system_has_no_links(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(checkpoint.os, "link", no_links)
    folder = checkpoint.CheckpointFolder(tmp_path)
    folder.save_last({"step": 1})
    folder.mark_last_as_best()
    folder.save_last({"step": 2})
    assert checkpoint.load(folder.best)["step"] == 1 and checkpoint.load(folder.last)["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_marking_twice_leaves_nothing_behind_and_leftovers_are_removed(tmp_path):
    folder = checkpoint.CheckpointFolder(tmp_path)
    folder.save_last({"step": 1})
    folder.mark_last_as_best()
    folder.mark_last_as_best()
    (tmp_path / ".last.pt.123.partial").write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_or_missing_file_is_one_message(tmp_path, damage):
    path = tmp_path / "a.pt"
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(CheckpointError, match="a.pt"):
        checkpoint.load(path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"format": 1, "code": print}, path)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_random_state_goes_on():
    cpu = torch.device("cpu")
    state = checkpoint.random_state(cpu)
    first = torch.rand(3)
    checkpoint.set_random_state(state, cpu)
    assert torch.equal(first, torch.rand(3))
