"""What was damaged is refused, whatever bit it is, and what is missing is missed; nothing is read as good."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_dataset import small_columns, small_spec, write

from clickwise import checkpoint, manifest
from clickwise.data.check import MEMORY
from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.transcode import transcode
from clickwise.errors import ClickwiseError, DataError
from clickwise.run.whole_model import own_spec


def turn_a_bit(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    times = path.stat()
    path.unlink()  # it may be a second name of another file
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def refused(result, *words):
    assert result.code == 1 and "Traceback" not in result.err, result.err
    assert all(word in result.err for word in words), result.err


@pytest.mark.parametrize("share", [0.02, 0.4, 0.6, 0.999])
@pytest.mark.parametrize("which", ["last", "best"])
def test_fault_bit_flip(clickwise, run, which, share):
    path = run / "checkpoint" / f"{which}.pt"
    turn_a_bit(path, int(path.stat().st_size * share))
    refused(clickwise("evaluate", run, "--checkpoint", which), path.name, "not readable as it was written")
    if which == "last":
        (run / "DONE").unlink()
        refused(clickwise("train", "--resume", run), "last.pt", "not readable as it was written")


@pytest.mark.parametrize(("file", "verb"), [
    ("recipe.yaml", "evaluate"), ("manifest.json", "evaluate"), ("log.jsonl", "report"), ("metrics.json", "report"),
    ("scores.npz", "report")])
def test_a_bit_of_another_file_of_a_run(clickwise, run, file, verb):
    path = run / file
    content = bytearray(path.read_bytes())
    digit = next(at for at, byte in enumerate(content) if byte in b"23456789" and at > 30)
    content[digit] ^= 1  # another digit: it can be read, and says something else
    path.write_bytes(content)
    refused(clickwise(verb, run), file)


def test_the_feature_spec_that_a_run_keeps(run):
    path = run / "feature_spec.yaml"
    assert own_spec(run) is not None
    path.write_text(path.read_text().replace("cardinality: ", "cardinality: 1", 1))
    with pytest.raises(DataError, match=r"feature_spec\.yaml\n.*damaged"):
        own_spec(run)


def test_checkpoints_that_stand_in_each_others_place_or_are_gone(clickwise, run):
    last, best = (run / "checkpoint" / name for name in ("last.pt", "best.pt"))
    content = best.read_bytes()
    turn_a_bit(last, 5000)  # so that the two differ
    best.unlink()
    refused(clickwise("evaluate", run), "best.pt", "no such file")
    best.write_bytes(last.read_bytes())
    refused(clickwise("evaluate", run), "best.pt")
    best.write_bytes(content)
    assert clickwise("evaluate", run).code == 0


def test_sums_can_be_left_out(clickwise, run):
    turn_a_bit(run / "checkpoint" / "best.pt", 40000)
    assert clickwise("evaluate", run, "train.checksums=false").code == 0


def test_a_training_without_sums_says_nothing_of_its_checkpoints(clickwise, words):
    assert clickwise("train", *words, "train.checksums=false").code == 0
    (run,) = Path("runs/synthetic-dlrm").iterdir()
    assert {"recipe.yaml", "metrics.json"} <= {*json.loads((run / "manifest.json").read_text())["files"]}
    assert not [name for name in json.loads((run / "manifest.json").read_text())["files"] if "checkpoint" in name]
    assert clickwise("evaluate", run).code == 0


@pytest.mark.parametrize("key", ["model", "tables", "position", "random", "data", "recipe"])
def test_a_key_that_is_missing_is_one_message(clickwise, run, key):
    content = checkpoint.load(run / "checkpoint/last.pt")
    torch.save({name: value for name, value in content.items() if name != key}, run / "checkpoint/other.pt")
    os.replace(run / "checkpoint/other.pt", run / "checkpoint/last.pt")
    for file in ("manifest.json", "DONE"):
        (run / file).unlink()
    refused(clickwise("train", "--resume", run), "last.pt", key)


def test_a_run_of_a_version_without_manifests_loads_and_says_so_once(clickwise, run):
    (run / "manifest.json").unlink()
    manifest._say_unverified.cache_clear()
    result = clickwise("evaluate", run)
    assert result.code == 0 and result.err.count("not verified") == 1
    (run / "DONE").unlink()
    assert clickwise("train", "--resume", run).code == 0
    assert "metrics.json" in json.loads((run / "manifest.json").read_text())["files"]


def test_killed_at_any_replacement_either_content_is_good(tmp_path):
    first, second, path = b"first", b"second, and longer", tmp_path / "a"
    known = manifest.Manifest(tmp_path)
    known.replace("a", manifest.more((0, 0), first))
    assert not manifest.Manifest(tmp_path).verified("a").exists()  # killed before it stood there
    assert not manifest.Manifest(tmp_path).requires("a")
    path.write_bytes(first)
    known.replace("a", manifest.more((0, 0), second))
    assert manifest.Manifest(tmp_path).requires("a")
    for content in (first, second):
        path.write_bytes(content)
        assert manifest.Manifest(tmp_path).verified("a") == path
    path.write_bytes(b"third")
    with pytest.raises(DataError, match="damaged"):
        manifest.Manifest(tmp_path).verified("a")
    path.write_bytes(second)
    known.add([])  # what was replaced has its new content alone from then on
    path.write_bytes(first)
    with pytest.raises(DataError, match="damaged"):
        manifest.Manifest(tmp_path).verified("a")


# ---- prepared datasets

FILES = ["label.bin", "numerical.bin", "large.bin", "small.bin", "tags.values.bin", "tags.offsets.bin"]


@pytest.fixture
def columns(tmp_path):
    """A dataset with a manifest, whose train mapping has been looked at."""
    transcode(write(small_spec(tmp_path / "source"), small_columns(200)), tmp_path / "ds")
    opened(tmp_path / "ds").columns("train")
    assert (tmp_path / "ds" / MEMORY).exists()
    return tmp_path / "ds"


def opened(folder) -> Dataset:
    return Dataset(DataConfig(path=str(folder), test="train"))


@pytest.mark.parametrize("file", FILES)
def test_a_bit_of_a_column(columns, file):
    turn_a_bit(columns / "train" / file, 3)  # size and time of change stay
    with pytest.raises(DataError, match=f"{file}\n.*damaged"):
        opened(columns).columns("train")


def test_a_bit_of_the_feature_spec_of_a_dataset(columns):
    path = columns / "feature_spec.yaml"
    path.write_text(path.read_text().replace("cardinality: 5000", "cardinality: 5001"))
    with pytest.raises(DataError, match=r"feature_spec\.yaml\n.*damaged"):
        opened(columns)


def test_columns_in_each_others_place(columns, tmp_path):
    """Both hold what the spec allows; nothing but their sums tells them from each other."""
    small, label = (columns / "train" / name for name in ("small.bin", "label.bin"))
    content = label.read_bytes()
    label.write_bytes((np.fromfile(small, "int8") % 2).astype("int8").tobytes())
    with pytest.raises(DataError, match=r"label\.bin"):
        opened(columns).columns("train")
    label.write_bytes(content)
    opened(columns).columns("train")


def test_another_dataset_of_the_same_sizes_and_times_has_another_identity(columns, tmp_path):
    before = opened(columns)
    assert before.is_that_of(before.identity)
    transcode(write(small_spec(tmp_path / "other source"), small_columns(200, seed=1)), tmp_path / "other")
    opened(tmp_path / "other").columns("train")
    for path in (tmp_path / "other").rglob("*"):
        if path.is_file() and (twin := columns / path.relative_to(tmp_path / "other")).exists():
            times = twin.stat()
            if twin.suffix == ".bin" and "tags" not in twin.name:
                assert times.st_size == path.stat().st_size
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(columns)
    shutil.copytree(tmp_path / "other", columns)  # copy2 keeps the times
    assert not opened(columns).is_that_of(before.identity)


def test_every_byte_of_a_dataset_without_a_manifest_counts(tmp_path):
    """A byte that no sample of the file would hold: the check goes over all of them."""
    write(small_spec(tmp_path), small_columns(200))
    before = opened(tmp_path).identity
    turn_a_bit(tmp_path / "train" / "display.bin", 801)
    assert opened(tmp_path).identity != before


def test_what_a_stranger_remembered_is_not_believed(columns, tmp_path):
    """A copy whose ids are out of range, with a memory that calls them good: sizes, times of change and sums are those
    of the files."""
    path = tmp_path / "copy"
    shutil.copytree(columns, path)
    ids = np.fromfile(path / "train/small.bin", "int8")
    ids[5] = 120
    ids.tofile(path / "train/small.bin")
    (path / manifest.FILE).unlink()
    memory = json.loads((path / MEMORY).read_text())
    for name, times in memory["train"]["files"].items():
        os.utime(path / name, ns=(times[1], times[1]))
        memory["train"]["crc32"][name] = manifest.sum_of_file(path / name)[1]
    (path / MEMORY).write_text(json.dumps(memory))
    with pytest.raises(ClickwiseError, match="id 120 of the feature 'small'"):
        opened(path).columns("train")


def test_what_checkpoints_of_earlier_versions_say_of_the_data_is_compared(columns):
    dataset = opened(columns)
    import hashlib

    def sampled(path):  # a file below 64 KiB
        return hashlib.sha256(str(path.stat().st_size).encode() + path.read_bytes()).hexdigest()

    files = {file: sampled(columns / file) for chunk in dataset.spec.mappings["train"] for file in chunk.files}
    old = {"spec": dataset.spec.fingerprint(), "files": files}
    assert dataset.is_that_of(old)
    assert not dataset.is_that_of({**old, "files": {**files, "train/small.bin": "0" * 64}})
    assert not dataset.is_that_of({**old, "spec": "another"})
