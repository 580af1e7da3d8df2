import json

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


def test_json_is_strict():
    value = {"auc": float("nan"), "list": [1.5, float("inf"), "text"], "deep": {"x": -float("inf")}}
    assert json.loads(files.to_json(value)) == {"auc": None, "list": [1.5, None, "text"], "deep": {"x": None}}


def test_what_is_shipped_is_found():
    assert (files.shipped("recipes") / "tiny" / "dlrm.yaml").exists()
    assert (files.shipped("data/kuairand_pure") / "LICENSE").exists()
    with pytest.raises(FileNotFoundError):
        files.shipped("data/nothing")
