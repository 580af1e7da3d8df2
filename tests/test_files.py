import errno
import json
import os

import numpy as np
import pytest

from clickwise import files


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    files.write_text(path, "one")
    with pytest.raises(RuntimeError), files.whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "out"
    for content in ("one", "two"):
        with files.whole_folder(path) as temporary:
            (temporary / content).write_text(content)
    with pytest.raises(RuntimeError), files.whole_folder(path) as temporary:
        (temporary / "three").write_text("three")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["two"] and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_the_same(tmp_path):
    for name in ("a.txt", "out"):
        if (pid := os.fork()) == 0:
            write = files.whole_file if name == "a.txt" else files.whole_folder
            with write(tmp_path / name) as temporary:
                (temporary if temporary.is_file() else temporary / "x").write_text("half")
                os._exit(0)
        os.waitpid(pid, 0)
    left = sorted(file.name for file in tmp_path.iterdir())
    assert len(left) == 2 and all(name.endswith(".partial") for name in left)
    others = [".a.txt.partial", ".b.txt.process1.partial", ".a.txt.process1x.partial"]
    for name in others:
        (tmp_path / name).write_text("of others")
    files.write_text(tmp_path / "a.txt", "one")
    with files.whole_folder(tmp_path / "out") as temporary:
        (temporary / "x").write_text("one")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*others, "a.txt", "out"])


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    with files.whole_file(tmp_path / "a.txt") as temporary, files.whole_folder(tmp_path / "out") as folder:
        temporary.write_text("half")
        if (pid := os.fork()) == 0:  # another process may not see what this one holds as its own
            files.remove_left_over(tmp_path / "a.txt")
            files.remove_left_over(tmp_path / "out")
            os._exit(0 if temporary.exists() and folder.exists() else 1)
        assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "a.txt").read_text() == "half"


@pytest.mark.parametrize("count", [3, files.FEW_FILES + 1])
def test_a_folder_is_put_on_the_disk_with_all_in_it(tmp_path, monkeypatch, count):
    asked, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (asked.append(os.readlink(f"/proc/self/fd/{handle}")),
                                                     fsync(handle)))
    (tmp_path / "deep").mkdir()
    for index in range(count):
        (tmp_path / f"deep/{index}").write_text("x")
    everything = {str(path) for path in (tmp_path, *tmp_path.rglob("*"))}
    files.to_disk(tmp_path)
    assert set(asked) == (everything if count <= files.FEW_FILES else set())
    monkeypatch.setattr(files, "_sync_file_system", lambda folder: False)
    files.to_disk(tmp_path)
    assert set(asked) == everything


@pytest.mark.parametrize("shape", ["f2", "V6", "strided", "empty", "mapped"])
def test_the_bytes_of_an_array(tmp_path, shape):
    array = np.arange(60, dtype="f2")
    array = {"f2": array, "V6": array.view("V6"), "strided": array.reshape(6, 10)[:, ::2], "empty": array[:0],
             "mapped": array}[shape]
    if shape == "mapped":
        array.tofile(tmp_path / "in")
        array = np.memmap(tmp_path / "in", "f2", "r")
    files.save_array(tmp_path / "out", array)
    assert (tmp_path / "out").read_bytes() == array.tobytes()


def test_a_full_disk_is_known_as_one():
    with pytest.raises(OSError) as caught, open("/dev/full", "wb") as file:
        files.write_array(file, np.zeros(100_000, "float16"))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == "/dev/full"


def test_json_is_strict():
    value = {"auc": float("nan"), "list": [1.5, float("inf"), "text"], "deep": {"x": -float("inf")}}
    assert json.loads(files.to_json(value)) == {"auc": None, "list": [1.5, None, "text"], "deep": {"x": None}}


def test_what_is_shipped_is_found():
    assert (files.shipped("recipes") / "tiny" / "dlrm.yaml").exists()
    assert (files.shipped("data/kuairand_pure") / "LICENSE").exists()
    with pytest.raises(FileNotFoundError):
        files.shipped("data/nothing")
