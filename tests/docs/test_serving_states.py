"""docs/serving_states.md, as it stands there: its Python goes on with events, and its store keeps the contract."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from kuairand_prepared import RAW, TO_REPLAY, prepared, table_of, write_raw

from clickwise.serve.states import Taken, open_store

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving_states.md").read_text(encoding="utf-8")
USE, STORE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
spec = importlib.util.spec_from_file_location("the_contract", ROOT / "tests/contracts/test_store_contract.py")
contract = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)
CONTRACT = [test for name, test in vars(contract).items() if name.startswith("test_")]


@pytest.fixture
def one_file(tmp_path, monkeypatch):
    """The name of the page's store."""
    (tmp_path / "my_stores.py").write_text(STORE)
    monkeypatch.syspath_prepend(tmp_path)
    yield f"my_stores.OneFile={tmp_path}/states"
    sys.modules.pop("my_stores", None)


@pytest.mark.parametrize("test", CONTRACT, ids=lambda test: test.__name__)
def test_its_store_keeps_the_contract(one_file, test):
    assert list(inspect.signature(test).parameters) == ["open_"]
    test(functools.partial(open_store, one_file))


def test_its_python(tmp_path):
    folder = prepared(write_raw(tmp_path / "raw"), "days", tmp_path)
    (folder / "preparation").rename(folder / "encoding")
    last = max(row["time_ms"] for row in TO_REPLAY)
    row = {**{name: TO_REPLAY[0][name] for name in RAW}, "time_ms": last + 1000}
    found = {"export": folder, "folder": tmp_path, "row": row, "log": table_of(TO_REPLAY, (*RAW, "is_click"))}
    exec(USE, found)
    assert isinstance(found["log"], pa.Table) and found["taken"].events > 30 and found["taken"].late == 0
    assert found["before"] != found["after"] != found["live"].encoder.row(row)
    assert all(name in PAGE for name in Taken.__dataclass_fields__)
