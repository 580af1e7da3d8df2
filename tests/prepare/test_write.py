from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys

import ibis
import numpy as np
import pytest
from criteo_rows import equal, random_lines, read, reference, rows_of, write_raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickwise.errors import PrepareError
from clickwise.prepare import criteo as criteo_dataset
from clickwise.prepare import write
from clickwise.prepare.engine import DuckDBEngine
from clickwise.spec import Feature

CHANNELS = {"numerical": ("a", "b"), "categorical": ("id", "tags"), "label": ("label",), "display": ("display",)}
FEATURES = {"a": Feature("a", "float16"), "b": Feature("b", "float16"), "label": Feature("label", "bool"),
            "id": Feature("id", "int8", cardinality=100), "display": Feature("display", "int64"),
            "tags": Feature("tags", "int16", cardinality=1000, max_hotness=9)}


@pytest.fixture(scope="module")
def engine():
    engine = DuckDBEngine(memory_limit="500MB", threads=1)
    yield engine
    engine.close()


def rows(count, seed):
    rng = np.random.default_rng(seed)
    lists = [rng.integers(0, 1000, rng.integers(0, 10)).tolist() for _ in range(count)]
    return {"a": rng.normal(size=count).astype(np.float32).tolist(), "b": rng.normal(size=count).tolist(),
            "id": rng.integers(0, 100, count).tolist(), "tags": lists, "label": rng.integers(0, 2, count).tolist(),
            "display": rng.integers(0, 2**60, count).tolist()}


def written(engine, folder, columns, **options):
    """The columns in the file order, after they were streamed in an order of their own."""
    count = len(columns["id"])
    types = {"row": "int64", "a": "float32", "b": "float64", "id": "int32", "tags": "array<int32>", "label": "int8",
             "display": "int64"}
    order = np.random.default_rng(1).permutation(count)
    mixed = {name: [values[i] for i in order] for name, values in {"row": range(count), **columns}.items()}
    table = engine.materialise(ibis.memtable(mixed, schema={name: types[name] for name in mixed}), "t")
    chunks = write.write_mapping(engine, folder, "train", lambda names: table.select("row", *names), features=FEATURES,
                                 channels=CHANNELS, rows=count, spill_folder=folder / "spill", **options)
    return {file: np.fromfile(folder / file, FEATURES[chunk.features[0]].dtype if "offsets" not in file else "int64")
            for chunk in chunks for file in chunk.files}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 300), seed=st.integers(0, 99), shuffle=st.none() | st.integers(0, 5),
       buffer_bytes=st.sampled_from([1 << 20, 1000, 64, 1]))
def test_every_value_in_its_place_however_little_is_buffered(engine, tmp_path, count, seed, shuffle, buffer_bytes):
    columns = rows(count, seed)
    found = written(engine, tmp_path, columns, shuffle_seed=shuffle, buffer_bytes=buffer_bytes)
    place = np.arange(count) if shuffle is None else write.permuted(np.arange(count), count, shuffle)
    order = np.argsort(place)
    numerical = np.array([columns["a"], columns["b"]], np.float16).T[order]
    assert np.array_equal(found["train/numerical.bin"].reshape(-1, 2), numerical)
    for name in ("label", "id", "display"):
        assert found[f"train/{name}.bin"].tolist() == [columns[name][i] for i in order]
    offsets, values = found["train/tags.offsets.bin"], found["train/tags.values.bin"]
    assert offsets[0] == 0 and len(offsets) == count + 1 and offsets[-1] == len(values)
    assert [values[offsets[i]:offsets[i + 1]].tolist() for i in range(count)] == [columns["tags"][i] for i in order]
    assert list((tmp_path / "spill").iterdir()) == []


@pytest.mark.parametrize(("name", "value", "found"), [
    ("id", 100, "from 0 to 100"), ("id", -1, "from -1 to"), ("id", None, "1 rows without a value"),
    ("tags", [3, 1000], "to 1000"), ("tags", None, "without a value"), ("a", float("-inf"), "not finite"),
    ("b", 1e9, "not finite or too large"), ("label", 2, "to 2")])
def test_values_that_contradict_the_spec_are_not_written(engine, tmp_path, name, value, found):
    columns = rows(20, 0)
    columns["id"][3] = 0
    columns[name][5] = value
    with pytest.raises(PrepareError, match=found) as caught:
        written(engine, tmp_path, columns)
    assert caught.value.where == name


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_permuted_is_one_to_one(size, seed):
    numbers = np.arange(size)
    result = write.permuted(numbers, size, seed)
    assert np.array_equal(np.sort(result), numbers)
    some = numbers[::3]
    assert np.array_equal(write.permuted(some, size, seed), result[::3])  # a number's place depends on it alone


def test_permuted_mixes_well():
    size = 100_000
    result = write.permuted(np.arange(size), size, 1)
    assert abs(np.corrcoef(result, np.arange(size))[0, 1]) < 0.02
    gaps = np.abs(np.diff(result))
    assert abs(gaps.mean() / size - 1 / 3) < 0.01 and (gaps == 1).mean() < 1e-3
    assert not np.array_equal(result, write.permuted(np.arange(size), size, 2))
    first_half = result[:size // 2]
    assert abs((first_half < size // 2).mean() - 0.5) < 0.01


# ---- the output folder: whole, absent, or resumable


LINES, TEST = random_lines(60, 1), random_lines(20, 2)


def stopping_at(monkeypatch, file, error):
    """Writing `file` fails once."""
    whole, state = write.PlacedFile._write, {"armed": True}

    def fail(self):
        if state["armed"] and str(self.path).endswith(file):
            state["armed"] = False
            self.path.write_bytes(b"half")
            raise error
        whole(self)

    monkeypatch.setattr(write.PlacedFile, "_write", fail)


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, RuntimeError])
def test_a_stopped_run_leaves_no_output_and_is_resumed(criteo, tmp_path, monkeypatch, capfd, kind):
    error = OSError(errno.ENOSPC, "No space left on device") if kind is OSError else kind()
    stopping_at(monkeypatch, "test/cat_3.bin", error)
    with pytest.raises(PrepareError if isinstance(error, OSError) else type(error)) as caught:
        criteo(LINES, TEST, engine={"tables": "disk"})
    if isinstance(error, OSError):
        assert "No space left" in caught.value.found and caught.value.do
    assert not (tmp_path / "out").exists()
    assert "is kept in" in capfd.readouterr().err
    monkeypatch.setattr(criteo_dataset, "_stage_files", None)  # what is finished is not done again
    files = {"train": [str(tmp_path / "out_train.tsv")], "test": [str(tmp_path / "out_test.tsv")]}
    out = criteo(files["train"], files["test"])
    assert "resuming an earlier run behind: raw files read, vocabularies, train written" in capfd.readouterr().err
    assert equal(read(out, "test"), reference(LINES, TEST, 1))
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_stopped_run_with_tables_in_memory_leaves_nothing(criteo, tmp_path, monkeypatch, error):
    stopping_at(monkeypatch, "test/cat_3.bin", error())
    with pytest.raises(error):
        criteo(LINES, TEST)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out_test.tsv", "out_train.tsv"]


def test_after_a_kill_the_next_run_starts_clean_or_goes_on(criteo, tmp_path, capfd):
    """A killed process cannot tidy up: the partial folder is there, with the lock released."""
    code = "from clickwise.prepare import criteo, run, write\nimport json, os, signal, sys\n" \
           "write.PlacedFile._write = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n" \
           "run(json.loads(sys.argv[1]), 'x')"
    files = [write_raw(tmp_path / "raw.tsv", LINES)]
    for tables, said in (("memory", "starting clean"), ("disk", "resuming")):
        recipe = {"dataset": {"name": "criteo", "train": files, "frequency_limit": 1}, "out": str(tmp_path / tables),
                  "engine": {"tables": tables, "threads": 1}}
        assert subprocess.run([sys.executable, "-c", code, json.dumps(recipe)]).returncode == -signal.SIGKILL
        assert not (tmp_path / tables).exists() and (tmp_path / f".{tables}.partial").exists()
        capfd.readouterr()
        out = criteo(files, name=tables)
        assert said in capfd.readouterr().err
        assert np.array_equal(rows_of(read(out, "train")), rows_of(reference(LINES, LINES, 1)))
        assert not (tmp_path / f".{tables}.partial").exists()


def test_after_a_stop_another_recipe_or_another_input_starts_clean(criteo, tmp_path, monkeypatch, capfd):
    for lines, options in ((LINES, {"frequency_limit": 2}), (LINES[:-1], {})):
        stopping_at(monkeypatch, "test/cat_3.bin", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            criteo(LINES, TEST, engine={"tables": "disk"}, overwrite=True)
        monkeypatch.undo()
        out = criteo(lines, TEST, shuffle=False, overwrite=True, **options)
        assert "starting clean (an earlier run had another recipe" in capfd.readouterr().err
        assert equal(read(out, "train"), reference(lines, lines, options.get("frequency_limit", 1)))


def test_an_existing_output(criteo, tmp_path, capfd):
    files = [str(tmp_path / "raw.tsv")]
    (tmp_path / "raw.tsv").write_text("".join(line + "\n" for line in LINES))
    out = criteo(files)
    before = (out / "preparation/summary.json").stat().st_mtime_ns
    assert criteo(files) == out and "already prepared" in capfd.readouterr().err
    assert (out / "preparation/summary.json").stat().st_mtime_ns == before
    with pytest.raises(PrepareError, match="another recipe"):
        criteo(files, frequency_limit=3)
    assert json.loads((out / "preparation/summary.json").read_text())["cardinalities"]["cat_0"] > 1
    assert equal(read(criteo(files, frequency_limit=3, shuffle=False, overwrite=True), "train"),
                 reference(LINES, LINES, 3))


def test_a_folder_with_other_things_is_never_touched(criteo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("years of work")
    with pytest.raises(PrepareError, match="other things"):
        criteo(LINES, overwrite=True)
    assert (tmp_path / "out/thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(PrepareError, match="a file"):
        criteo(LINES, name="file", overwrite=True)


def test_two_runs_at_once(criteo, tmp_path, monkeypatch):
    inner = []

    def second(*arguments):
        with pytest.raises(PrepareError, match="another process"):
            criteo([str(tmp_path / "out_train.tsv")])
        inner.append(True)
        monkeypatch.undo()
        return criteo_dataset._stage_files(*arguments)

    monkeypatch.setattr(criteo_dataset, "_stage_files", second)
    out = criteo(LINES, shuffle=False)
    assert inner and equal(read(out, "train"), reference(LINES, LINES, 1))
