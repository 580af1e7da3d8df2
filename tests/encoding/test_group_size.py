"""How many rows of a request have the same key, whether they come at once or in parts."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.encoding import Column, Encoder, Encoding, RawColumn
from clickwise.encoding.raw_types import Integer
from clickwise.encoding.states import GroupSize
from clickwise.errors import DataError

STATE = GroupSize(("display",), {"ads": RawColumn(Integer())})


def encoding():
    return Encoding({"display": RawColumn(Integer())}, {"ads": Column("ads", (), "int64")}, tables={"group": STATE})


def rows(displays):
    return pa.table({"display": pa.array(displays, pa.int64())})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | st.integers(-2, 2) | st.just(2**62), min_size=1, max_size=20), st.integers(1, 7))
def test_rows_with_the_same_key_are_counted(displays, at_once):
    counts = Counter(display for display in displays if display is not None)
    expected = [counts[display] if display is not None else 1 for display in displays]
    encoder = Encoder(encoding(), alone=True)
    assert encoder.columns(rows(displays)).arrays["ads"].tolist() == expected
    parts = [rows(displays[first:first + at_once]) for first in range(0, len(displays), at_once)]
    encoder = encoder.in_parts(iter(parts))
    assert [size for part in parts for size in encoder.arrays(part)["ads"].tolist()] == expected


@pytest.mark.parametrize("displays", [[5, 5, 7], [5, 5, None], [7]])
def test_a_row_alone_is_refused(displays):
    encoder = Encoder(encoding())
    assert encoder.group == "display"
    alone = displays[-1]
    for ask in (lambda: encoder.columns(rows(displays)), lambda: encoder.row({"display": alone}),
                lambda: encoder.in_parts([rows(displays)]).columns(rows(displays))):
        with pytest.raises(DataError, match=f"1 row alone with their display, {alone} for example"):
            ask()
    assert encoder.columns(rows([5, 5, 5])).arrays["ads"].tolist() == [3, 3, 3]


def test_it_is_written_and_read_without_files(tmp_path):
    encoding().save(tmp_path)
    found = Encoding.load(tmp_path)
    assert found.tables == {"group": STATE}
    found.copy_to(tmp_path / "copy")
    assert Encoder(Encoding.load(tmp_path / "copy"), alone=True).row({"display": 3}) == {"ads": 1}
    assert not (tmp_path / "copy" / "states" / "group").exists()
