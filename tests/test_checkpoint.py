import errno

import pytest
import torch

from clickwise import checkpoint
from clickwise.errors import CheckpointError


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
    state = checkpoint.random_state()
    first = torch.rand(3)
    checkpoint.set_random_state(state)
    assert torch.equal(first, torch.rand(3))
