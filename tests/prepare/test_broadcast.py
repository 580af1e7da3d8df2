"""What belongs to a key of the rows, handed out to them."""

from __future__ import annotations

import numpy as np
import pytest

from clickwise.feature_spec import Feature
from clickwise.prepare import broadcast
from clickwise.prepare.broadcast import BroadcastByKey, Column

ROWS, KEYS = 50, 7


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch):
    monkeypatch.setattr(broadcast, "_ROWS_AT_ONCE", 8)


@pytest.fixture
def key():
    return np.random.default_rng(0).integers(0, KEYS, ROWS).astype(np.int32)


def test_a_column_of_a_key_and_one_of_the_rows_side_by_side(tmp_path, key):
    of_key, of_row = np.arange(KEYS, dtype="f4") ** 2, np.arange(ROWS, dtype="f4")
    reported = []
    BroadcastByKey([Column(of_key), Column(of_row)], [key, None]).write(
        [tmp_path / "x.bin"], [Feature("a", "float32"), Feature("b", "float32")], ROWS,
        lambda rows, file: reported.append((rows, file)))
    found = np.fromfile(tmp_path / "x.bin", "f4").reshape(ROWS, 2)
    assert np.array_equal(found, np.stack([of_key[key], of_row], 1))
    assert sum(rows for rows, _ in reported) == ROWS and {file for _, file in reported} == {"x.bin"}


def test_ids_keep_their_type(tmp_path, key):
    ids = np.arange(KEYS, dtype="i2")
    BroadcastByKey([Column(ids)], [key]).write([tmp_path / "x.bin"], [Feature("a", "int16", cardinality=KEYS)],
                                               ROWS, print)
    assert np.array_equal(np.fromfile(tmp_path / "x.bin", "i2"), key)


@pytest.mark.parametrize("lists", [[[1, 2], [], [3], [], [4, 5, 6], [], [7]], [[]] * KEYS], ids=["some", "none"])
def test_lists(tmp_path, key, lists):
    values = np.array([value for each in lists for value in each], "i1")
    offsets = np.cumsum([0, *map(len, lists)])
    feature = Feature("a", "int8", cardinality=9, max_hotness=3)
    BroadcastByKey([Column(values, offsets)], [key]).write([tmp_path / "v.bin", tmp_path / "o.bin"], [feature], ROWS,
                                                           print)
    found, ends = np.fromfile(tmp_path / "v.bin", "i1"), np.fromfile(tmp_path / "o.bin", "i8")
    assert len(ends) == ROWS + 1 and ends[0] == 0
    assert [found[ends[i]:ends[i + 1]].tolist() for i in range(ROWS)] == [lists[k] for k in key]
