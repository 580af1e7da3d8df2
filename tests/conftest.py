import contextlib
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: the cores are shared
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared by processes

import pytest

from clickwise import cli
from clickwise.progress import show_log

show_log()  # as the command line does: tests read it on stderr


class Result:
    """What a command left: exit code, standard output, standard error."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def clickwise(capsys, monkeypatch, tmp_path):
    """Runs the command line in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["clickwise", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture(scope="module")
def engine():
    """One DuckDB engine for the tests of a file."""
    from clickwise.prepare.duckdb_engine import DuckDBEngine  # loaded only where a test asks for it

    with contextlib.closing(DuckDBEngine(memory_limit="500MB", threads=2)) as engine:
        yield engine
