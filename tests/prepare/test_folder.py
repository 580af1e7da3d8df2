"""The output folder: whole, absent, or resumable, and what is said of it."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from criteo_rows import equal, random_lines, read, reference, rows_of, write_raw

from clickwise import files
from clickwise.errors import PrepareError
from clickwise.prepare import criteo as criteo_dataset
from clickwise.prepare import run, scatter, small_batch_size, summary
from clickwise.prepare.engine import CutShort, EngineConfig
from clickwise.prepare.folder import PreparationFolder

LINES, TEST = random_lines(60, 1), random_lines(20, 2)


def stopping_at(monkeypatch, file, error):
    """Writing `file` fails once."""
    whole, state = scatter.ScatterFile._write, {"armed": True}

    def fail(self):
        if state["armed"] and str(self.path).endswith(file):
            state["armed"] = False
            self.path.write_bytes(b"half")
            raise error
        whole(self)

    monkeypatch.setattr(scatter.ScatterFile, "_write", fail)


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
    monkeypatch.setattr(criteo_dataset.CriteoColumns, "store", None)  # what is finished is not done again
    files = {"train": [str(tmp_path / "out_train.tsv")], "test": [str(tmp_path / "out_test.tsv")]}
    out = criteo(files["train"], files["test"])
    assert "an earlier run after: raw files read, vocabularies, encoding, train written" in capfd.readouterr().err
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
    code = "from clickwise.prepare import criteo, run, scatter\nimport json, os, signal, sys\n" \
           "scatter.ScatterFile._write = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n" \
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
        return criteo_dataset.CriteoColumns.store(*arguments)

    monkeypatch.setattr(criteo_dataset.CriteoColumns, "store", second)
    out = criteo(LINES, shuffle=False)
    assert inner and equal(read(out, "train"), reference(LINES, LINES, 1))


def test_an_error_in_the_recipe_keeps_nothing(criteo, tmp_path, capfd):
    files = [write_raw(tmp_path / name, lines) for name, lines in (("day_0", LINES), ("day_1", LINES[:1]))]
    with pytest.raises(PrepareError, match="dataset.split"):
        criteo(files, split="halve_last", engine={"tables": "disk"})
    assert "is kept in" not in capfd.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["day_0", "day_1"]


def test_too_little_memory_keeps_what_was_done(criteo, tmp_path, monkeypatch, capfd):
    stopping_at(monkeypatch, "test/cat_3.bin", CutShort("engine.memory_limit", found="too little"))
    with pytest.raises(PrepareError):
        criteo(LINES, TEST, engine={"tables": "disk"})
    assert "is kept in" in capfd.readouterr().err


def test_another_spelling_of_the_same_files_is_the_same_recipe(criteo, tmp_path, monkeypatch, capfd):
    files = [write_raw(tmp_path / name, LINES) for name in ("day_0", "day_1")]
    criteo(files)
    monkeypatch.chdir(tmp_path)
    for spelling in (["day_*"], [str(tmp_path / "day_?")], ["day_0", "./day_1"]):
        capfd.readouterr()
        criteo(spelling)
        assert "already prepared" in capfd.readouterr().err
    with pytest.raises(PrepareError, match="--overwrite"):
        criteo(files[::-1])
    with pytest.raises(PrepareError, match="--overwrite"):
        criteo(files[:1], files[1:])


@pytest.mark.parametrize("name", ["/proc/x", "file/x", "file/x/y"])
def test_a_folder_that_cannot_be_made(criteo, tmp_path, name):
    (tmp_path / "file").touch()
    criteo(LINES, name="raw")
    with pytest.raises(PrepareError) as caught:
        run({"dataset": {"name": "criteo", "train": [str(tmp_path / "raw_train.tsv")]},
             "out": str(tmp_path / name)}, "x")
    assert caught.value.where == str(tmp_path / name) and caught.value.found and caught.value.do


def test_what_was_done_is_said_and_the_command_that_comes_next(criteo, tmp_path, monkeypatch, capfd):
    out = criteo([*LINES, "bad"], TEST, max_bad_rows=2)
    said = capfd.readouterr().err
    rows = {"train": len(LINES), "test": len(TEST)}
    assert f"train {rows['train']}, test {rows['test']}\n" in said
    assert "bad rows 1 skipped" in said and " rows/s\n" in said
    command = f"clickwise train criteo/dlrm_small train.batch_size={small_batch_size(len(LINES))} data.validation=null"
    assert f"{command} data.path={out}\n" in said
    found = summary(out)
    assert found["folder"] == str(out) and found["rows"] == rows and found["seconds"] > 0
    sizes = found["cardinalities"].values()
    assert f"{sum(sizes):,} in 26 features, from {min(sizes):,} to {max(sizes):,}" in said
    assert summary(tmp_path) == {"folder": str(tmp_path)}
    monkeypatch.chdir(tmp_path)
    run({"dataset": {"name": "criteo", "train": [str(tmp_path / "out_train.tsv")], "max_bad_rows": 1},
         "out": "data/prepared/criteo"}, "x")
    assert capfd.readouterr().err.endswith(f"{command} data.test=train\n")  # in that place recipes look for it


@pytest.mark.parametrize("missing", [["ibis"], ["duckdb"], ["ibis", "duckdb"]])
def test_without_the_packages_of_preparation_one_message_says_how_to_get_them(tmp_path, missing):
    code = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:]))\n" \
           "from clickwise.errors import PrepareError\nfrom clickwise.prepare import run\n" \
           "try: run({'dataset': {'name': 'criteo', 'train': ['x']}, 'out': 'out'}, 'r')\n" \
           "except PrepareError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code, *missing], capture_output=True, text=True, cwd=tmp_path)
    assert f"{' and '.join(missing)} not installed" in done.stdout
    assert "pip install 'ibis-framework[duckdb]'" in done.stdout


# Interrupted around the exchange -------------------------------------------------------------------------------------

FILES = {"train/a.bin": b"a" * 50, "train/b.bin": b"b" * 70, "feature_spec.yaml": b"spec"}


def prepare_by_stages(out, number):
    """A preparation of two stages without an engine; `number` is its recipe, and stands in every file."""
    def write(name, content):
        (folder.dataset / name).parent.mkdir(exist_ok=True)
        (folder.dataset / name).write_bytes(content + bytes([number]))

    with PreparationFolder(out, recipe={"dataset": {"number": number}}, inputs={}, engine=EngineConfig(),
                           overwrite=True) as folder:
        for name, content in FILES.items():
            folder.stage(name, functools.partial(write, name, content))
        folder.finish({})


def whole(out):
    """The number of the preparation whose result stands there, all of it; None where nothing does."""
    if not out.exists():
        return None
    found = {name: (out / name).read_bytes() for name in FILES}
    number = found["feature_spec.yaml"][-1]
    assert found == {name: content + bytes([number]) for name, content in FILES.items()}
    assert json.loads((out / "preparation/summary.json").read_text())["fingerprint"]
    return number


def interrupted(monkeypatch, at, out, end) -> bool:
    """Whether preparing number 2 does `at` operations on files: then `end` is called, before or after one of them."""
    done = 0

    def count():
        nonlocal done
        done += 1
        if done == at:
            end()

    def counted(function):
        def call(*args, **kwargs):
            count()
            value = function(*args, **kwargs)
            count()
            return value

        return call

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink", "rmdir", "mkdir"):
            patched.setattr(os, name, counted(getattr(os, name)))
        patched.setattr(files, "_exchange", counted(files._exchange))
        prepare_by_stages(out, 2)
    return done >= at


def killed(monkeypatch, at, out) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            interrupted(monkeypatch, at, out, lambda: os._exit(9))
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def stopped_by_ctrl_c(monkeypatch, at, out) -> bool:
    def ctrl_c():
        raise KeyboardInterrupt

    try:
        return interrupted(monkeypatch, at, out, ctrl_c)
    except KeyboardInterrupt:
        return True


@pytest.mark.parametrize("can_exchange", [True, pytest.param(False, marks=pytest.mark.slow)],
                         ids=["exchanged in one step", "renamed twice"])
@pytest.mark.parametrize("interrupt", [killed, stopped_by_ctrl_c])
def test_fault_hollow_overwrite(tmp_path, monkeypatch, interrupt, can_exchange):
    """Whenever a preparation that replaces another is interrupted: a whole dataset stands there, or (where two folders
    cannot be exchanged) the old one is put back; and the same again ends with all of the new one and nothing beside."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # the power stays on
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    out, hit, at = tmp_path / "out", True, 0
    while hit:
        at += 1
        prepare_by_stages(out, 1)
        hit = interrupt(monkeypatch, at, out)
        if not can_exchange:
            files.put_back(out)
        assert whole(out) in (1, 2)
        prepare_by_stages(out, 2)
        assert whole(out) == 2 and [file.name for file in out.parent.iterdir()] == ["out"], f"operation {at}"
    assert at > 20


def test_what_is_gone_from_a_partial_folder_is_not_resumed(tmp_path, capfd):
    options = {"recipe": {"dataset": {}}, "inputs": {}, "engine": EngineConfig()}
    out = tmp_path / "out"

    def write(folder):
        (folder.dataset / "train").mkdir()
        (folder.dataset / "train/a.bin").write_bytes(b"a")

    for lost in ("train/a.bin", None):
        with pytest.raises(KeyboardInterrupt), PreparationFolder(out, **options) as folder:
            folder.stage("one", lambda: write(folder))
            raise KeyboardInterrupt
        if lost:
            (tmp_path / ".out.partial/dataset" / lost).unlink()
        capfd.readouterr()
        done_again = []
        with pytest.raises(RuntimeError), PreparationFolder(out, **options) as folder:
            folder.stage("one", functools.partial(done_again.append, True))
            folder._stages.clear()
            raise RuntimeError
        assert bool(done_again) == bool(lost)
        assert ("part of what it wrote is gone" if lost else "resuming") in capfd.readouterr().err


def test_a_partial_folder_beside_a_finished_one_is_cleared(tmp_path):
    out = tmp_path / "out"
    prepare_by_stages(out, 1)
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/state.json").write_text("{}")
    again = PreparationFolder(out, recipe={"dataset": {"number": 1}}, inputs={}, engine=EngineConfig())
    assert again.unchanged and not (tmp_path / ".out.partial").exists()


def test_what_was_put_in_place_just_before_a_kill_is_not_done_again(tmp_path, monkeypatch):
    """A run that is killed after the exchange had finished: the same command finds its result, `--overwrite` or not."""
    out = tmp_path / "out"
    prepare_by_stages(out, 1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(PreparationFolder, "__exit__", lambda *_: None)
        exchange = files._exchange
        patched.setattr(files, "_exchange", lambda *folders: stopped(exchange(*folders)))
        prepare_by_stages(out, 2)
    state = json.loads((tmp_path / ".out.partial/state.json").read_text())
    assert state["placed"] and whole(out) == 2
    again = PreparationFolder(out, recipe={"dataset": {"number": 2}}, inputs={}, engine=EngineConfig(), overwrite=True)
    assert again.unchanged and whole(out) == 2 and [file.name for file in tmp_path.iterdir()] == ["out"]
    once_more = PreparationFolder(out, recipe={"dataset": {"number": 2}}, inputs={}, engine=EngineConfig(),
                                  overwrite=True)
    assert not once_more.unchanged  # nothing was interrupted: --overwrite means what it says


def stopped(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("state", [
    "", "[]", "{}", "null", "7", '{"fingerprint": 1}', "[" * 100_000, '{"stages": {"a": 1}, "fingerprint": "x"}',
    '{"fingerprint": "FINGERPRINT", "stages": ["a"], "folder": 1, "files": {}, "tables": false, "placed": false}',
    '{"fingerprint": "FINGERPRINT", "stages": {"a": 1}, "folder": "1", "files": {}, "tables": false, "placed": 0}'])
def test_a_damaged_state_starts_clean(tmp_path, state):
    folder = PreparationFolder(tmp_path / "out", recipe={"dataset": {"number": 1}}, inputs={}, engine=EngineConfig())
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/state.json").write_text(state.replace("FINGERPRINT", folder.fingerprint))
    prepare_by_stages(tmp_path / "out", 1)
    assert whole(tmp_path / "out") == 1 and [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_a_state_tells_of_is_on_the_disk_before(tmp_path, monkeypatch):
    told, synced = [], set()

    def to_disk(folder):
        synced.update(file for file in folder.rglob("*") if file.is_file())

    def write_json(path, value):
        if path.name == "state.json" and not value["placed"]:
            told.append({tmp_path / ".out.partial/dataset" / file for file in value["files"]})
            assert told[-1] <= synced
        files.write_json(path, value)

    from clickwise.prepare import folder as module

    monkeypatch.setattr(module, "to_disk", to_disk)
    monkeypatch.setattr(module, "write_json", write_json)
    prepare_by_stages(tmp_path / "out", 1)
    assert len(told) == len(FILES) and len(told[-1]) == len(FILES)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE])
def test_whatever_the_disk_refuses_is_one_message(tmp_path, monkeypatch, number):
    with pytest.raises(PrepareError) as caught, PreparationFolder(
            tmp_path / "out", recipe={"dataset": {}}, inputs={}, engine=EngineConfig()) as folder:
        folder.stage("one", lambda: 1)
        raise OSError(number, os.strerror(number))
    assert caught.value.where == str(tmp_path / "out") and caught.value.found == os.strerror(number)
    assert caught.value.do
