"""Lists by key: for many rows as for one; a file of another's is looked at before it is read."""

from __future__ import annotations

import pyarrow as pa
import pytest

from clickwise.encoding import RawColumn
from clickwise.encoding.further_operations import SparseProduct
from clickwise.encoding.raw_types import Float, Integer
from clickwise.encoding.states import ListLookup
from clickwise.encoding.states.keyed_table import write_keyed_table
from clickwise.errors import DataError

STATE = ListLookup(("document",), {"places": RawColumn(Integer()), "weights": RawColumn(Float())})


def written(folder, places, weights, type_=None):
    write_keyed_table(folder, {"document": pa.array(range(10, 10 + len(places)))}, {
        "places": pa.array(places, pa.list_(type_ or pa.int64())),
        "weights": pa.array(weights, pa.list_(pa.float64()))})
    return STATE.load(folder)


def test_many_rows_are_looked_up_as_one_is(tmp_path):
    state = written(tmp_path, [[3, 1], [], None], [[0.5, 0.25], [], None])
    documents = [11, 10, None, 99, 12, 10]
    found = state.look_up({"document": pa.array(documents, pa.int64())})
    ones = [state.look_up_one({"document": document}) for document in documents]
    assert [found[name].to_pylist() for name in STATE.gives] == [[one[name] for one in ones] for name in STATE.gives]
    assert found["places"].to_pylist() == [[], [3, 1], None, None, None, [3, 1]]


@pytest.mark.parametrize("places, type_", [([[None]], pa.int64()), ([["1"]], pa.string()), ([[1]], pa.int32())])
def test_lists_of_another_type_or_with_missing_values_are_refused(tmp_path, places, type_):
    with pytest.raises(DataError, match="list"):
        written(tmp_path, places, [[0.5]], type_)


def test_a_vector_has_a_weight_for_every_place(tmp_path):
    state = written(tmp_path, [[3, 1], [3]], [[0.5], [0.5]])
    two = [state.look_up_one({"document": document}) for document in (10, 11)]
    many = state.look_up({"document": pa.array([10])})
    for ask in (lambda: SparseProduct().one(*two[0].values(), *two[1].values()),
                lambda: SparseProduct().many(*many.values(), *many.values())):
        with pytest.raises(DataError, match="another number of weights"):
            ask()
