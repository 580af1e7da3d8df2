"""Not enough memory, nor threads: one message before anything is allocated, or when it comes to it."""

import threading
from fractions import Fraction

import numpy as np
import pytest
import torch

from clickwise import model_memory
from clickwise.embedding import build_embeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.embedding.tables import table_bytes
from clickwise.errors import EngineError
from clickwise.memory_limits import Memory, memory, out_of_memory, shown
from clickwise.model_memory import check_dense, check_tables

SMALL = ["data.synthetic.rows={train: 600, validation: 200, test: 200}", "train.batch_size=100", "train.steps=1",
         "baselines=[]"]


@pytest.mark.parametrize(("words", "told"), [
    (["data.synthetic.cardinalities=[99999999999999]"], ["'cat_0'", "embedding.max_table_size=N", "table_dtype"]),
    (["model.top_mlp=[100000000000]"], ["dense parameters", "100,000,000,000", "`model`"]),
    (["data.synthetic.rows={train: 10000000000000, validation: 9, test: 9}"], ["10,000,000,000,000 rows", "fewer"]),
    (["train.batch_size=600", "model.top_mlp=[60000]", "optimizer={name: sgd}"], ["batch of 600", "lower"])])
def test_fault_cpu_memory(clickwise, monkeypatch, tmp_path, words, told):
    if "train.batch_size=600" in words:  # as on a machine on which the model alone would fit
        monkeypatch.setattr(model_memory, "memory", lambda: Memory(10**8, 10**8, "the memory of a test"))
    result = clickwise("train", "tiny/dlrm", *SMALL, *words)
    assert result.code == 1 and "Traceback" not in result.err
    for word in [*told, "expected at most"]:
        assert word in result.err, result.err
    assert not (tmp_path / "runs").exists()


def test_fault_cpu_memory_where_the_system_does_not_tell(clickwise, monkeypatch):
    """Then the allocator refuses it."""
    monkeypatch.setattr(model_memory, "memory", lambda: None)
    result = clickwise("train", "tiny/dlrm", *SMALL, "data.synthetic.cardinalities=[99999999999999]")
    assert result.code == 1 and "Traceback" not in result.err and "max_table_size" in result.err


def test_a_thread_that_cannot_be_started_is_one_message(clickwise, monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    result = clickwise("train", "tiny/dlrm", *SMALL)
    assert result.code == 1 and "Traceback" not in result.err and "data.prefetch=0" in result.err


def test_what_libraries_say_of_memory_is_known():
    errors = []
    for allocate in (lambda: torch.empty(1 << 55, dtype=torch.uint8), lambda: np.empty(1 << 55, np.uint8),
                     lambda: torch.empty(1 << 62, 1 << 10), lambda: bytearray(1 << 60)):
        with pytest.raises((RuntimeError, MemoryError, ValueError, OSError)) as raised:
            allocate()
        errors.append(out_of_memory(raised.value))
    assert all(error is not None and error.where == "memory" for error in errors)
    assert out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert out_of_memory(KeyError("memory")) is None


@pytest.fixture
def system(tmp_path):
    """Writes files of /proc and /sys into a folder."""
    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("DOT", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path
    return write


MACHINE = {"proc__meminfo": "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\nSwapTotal: 1000 kB\nSwapFree: 500 kB\n"}
V2, V1 = "sys__fs__cgroup__", "sys__fs__cgroup__memory__"


def test_the_machine_is_the_bound_where_no_group_has_one(system):
    root = system(**MACHINE, proc__self__cgroup="0::/a/b\n", **{f"{V2}a__b__memoryDOTmax": "max\n"})
    assert memory(root) == Memory(8_001_000 * 1024, 6_000_500 * 1024, "the memory of this machine")


@pytest.mark.parametrize("path", ["a__b__", "a__", ""])
def test_a_group_of_version_2_or_one_around_it_is_the_bound(system, path):
    root = system(**MACHINE, proc__self__cgroup="0::/a/b\n", **{
        f"{V2}{path}memoryDOTmax": "1000000\n", f"{V2}{path}memoryDOTcurrent": "400000\n",
        f"{V2}{path}memoryDOTswapDOTmax": "0\n", f"{V2}{path}memoryDOTstat": "anon 5\ninactive_file 100000\n"})
    found = memory(root)
    assert (found.total, found.free) == (1_000_000, 700_000) and "control group" in found.of


@pytest.mark.parametrize("path", ["docker__x__", ""])
def test_a_group_of_version_1_or_one_around_it_is_the_bound(system, path):
    """In a container /proc names a path that is not there."""
    root = system(**MACHINE, proc__self__cgroup="5:cpu,cpuacct:/\n4:memory:/docker/x\n0::/\n", **{
        f"{V1}{path}memoryDOTlimit_in_bytes": "2000000\n", f"{V1}{path}memoryDOTusage_in_bytes": "500000\n"})
    assert (memory(root).total, memory(root).free) == (2_000_000, 1_500_000)


def test_a_group_without_a_limit_in_version_1_says_a_number_beyond_any_memory(system):
    root = system(**MACHINE, proc__self__cgroup="4:memory:/\n", **{
        f"{V1}memoryDOTlimit_in_bytes": f"{2**63 - 4096}\n"})
    assert memory(root).of == "the memory of this machine"


@pytest.mark.parametrize("text", ["", "0", "x::::", "MemTotal: many kB\n", "4:memory"])
def test_files_of_another_form_are_no_bound(system, text):
    root = system(proc__meminfo=text, proc__self__cgroup=text)
    assert memory(root) is None or "ulimit" in memory(root).of


@pytest.mark.parametrize("name", ["sgd", "adam", "rowwise_adagrad", "ftrl"])
@pytest.mark.parametrize("table_dtype", ["float32", "bfloat16"])
def test_what_is_counted_for_tables_is_what_an_engine_allocates(name, table_dtype):
    tables = [Table(name="a", rows=70, dim=4, features=("a",)), Table(name="b", rows=9, dim=2, features=("b",)),
              Table(name="c", rows=50, dim=4, features=("c",), trainable=False)]
    optimizer = TableOptimizer(name=name)
    engine = build_embeddings("reference", tables, ("a", "b", "c"), optimizer, table_dtype=table_dtype)
    assert sum(buffer.nbytes for buffer in engine.buffers()) == \
        sum(table_bytes(table, optimizer, table_dtype) for table in tables)


def test_tables_are_held_against_the_memory_and_what_is_free_of_it(monkeypatch, caplog):
    tables, optimizer = [Table(name="a", rows=1000, dim=25, features=("a",))], TableOptimizer(name="sgd")

    def check(total, free):
        monkeypatch.setattr(model_memory, "memory", lambda: Memory(total, free, "the memory of a test"))
        sizes = {table.path: Fraction(table_bytes(table, optimizer, "float32")) for table in tables}
        check_tables(tables, sizes, lambda part: optimizer, "float32", torch.device("cpu"))

    with pytest.raises(EngineError, match="at least 100 KB"):
        check(99_999, 99_999)
    assert not caplog.records
    check(100_000, 50_000)
    assert "50 KB of the memory of a test are free now" in caplog.text
    caplog.clear()
    check(100_000, 100_000)
    assert not caplog.records


def test_a_model_of_ones_own_that_needs_its_values_is_not_looked_at():
    check_dense(lambda: torch.nn.Linear(int(torch.ones(()).item()), 3), 0, torch.device("cpu"))


def test_bytes_are_shown_for_people():
    assert [shown(size) for size in (12, 999, 1500, 35184372088864, 10**21)] == \
        ["12 bytes", "999 bytes", "1.5 KB", "35.2 TB", "1,000,000 PB"]
