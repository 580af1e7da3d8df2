"""Encoded columns become the tensors of a graph."""

import numpy as np
import pytest
from model_inputs import history_spec, spec_of

from clickwise.data.events_windows import gap_ids
from clickwise.errors import DataError
from clickwise.serve.inputs import GraphInput, graph_inputs, tensors

HISTORY = history_spec([9], [30, 5], [30, 5], gaps=[6], length=4, beside=spec_of(2, [11, 6], [None, 3]))
READS = {"numerical": ("n1", "n0"), "categorical": ("c0", "c1"), "user": ("user",), "target_item": ("target0",),
         "history": ("seen0", "seen2")}
LISTS = np.array([0, 0, 2, 8])  # of none, two and six events


def lists(*values):
    return np.array(values), LISTS


def test_a_graph_takes_a_tensor_per_kind_and_one_per_list():
    assert graph_inputs(HISTORY, READS, most=3) == (
        GraphInput("numerical", "numerical", ("n1", "n0")), GraphInput("ids", "ids", ("c0", "user", "target0")),
        GraphInput("bag_0", "bag", ("c1",)), GraphInput("history_0", "history", ("seen0",), 3, 3),
        GraphInput("history_1", "history", ("seen2",), 3, 3, (1, 6)))
    assert [input_.length for input_ in graph_inputs(HISTORY, READS, least=2)] == [None] * 5
    assert [input_.most for input_ in graph_inputs(HISTORY, READS)] == [None, None, None, 4, 4]
    assert graph_inputs(HISTORY, READS, least=2)[-1].least == 2
    assert [input_.length for input_ in graph_inputs(HISTORY, READS, least=4)][-2:] == [4, 4]
    assert graph_inputs(HISTORY, {"categorical": ("c1",), "user": ()}) == (GraphInput("bag_0", "bag", ("c1",)),)


def test_columns_stand_side_by_side():
    inputs = (GraphInput("numerical", "numerical", ("n1", "n0")), GraphInput("ids", "ids", ("c0", "user")))
    columns = {"n0": np.array([1, 2], np.float16), "n1": np.array([0.5, -1], np.float32),
               "c0": np.array([3, 4], np.int8), "user": np.array([7, 2**40]), "label": np.array([1, 0])}
    found = tensors(inputs, columns, 2)
    assert {name: array.dtype.name for name, array in found.items()} == {"numerical": "float32", "ids": "int64"}
    assert found["numerical"].tolist() == [[0.5, 1], [-1, 2]]
    assert found["ids"].tolist() == [[3, 7], [4, 2**40]]


def test_bags_end_in_minus_one():
    bag = (GraphInput("bag_0", "bag", ("c1",)),)
    assert tensors(bag, {"c1": (np.array([5, 0, 4], np.int16), np.array([0, 2, 2, 3]))}, 3)["bag_0"].tolist() == [
        [5, 0], [-1, -1], [4, -1]]
    assert tensors(bag, {"c1": (np.array([], np.int16), np.array([0, 0]))}, 1)["bag_0"].tolist() == [[-1]]
    assert tensors(bag, {"c1": (np.array([], np.int16), np.array([0, 0, 0]))}, 2)["bag_0"].tolist() == [[-1], [-1]]
    assert tensors(bag, {"c1": (np.array([8, 9]), np.array([0, 2]))}, 1)["bag_0"].tolist() == [[8, 9]]


@pytest.mark.parametrize(("length", "most", "least", "expected"), [
    (3, 3, 1, [[0, 0, 0], [0, 11, 12], [4, 5, 6]]),
    (None, 3, 2, [[0, 0, 0], [0, 11, 12], [4, 5, 6]]),
    (None, 50, 1, [[0] * 6, [0, 0, 0, 0, 11, 12], [1, 2, 3, 4, 5, 6]]),
    (None, 50, 7, [[0] * 7, [0, 0, 0, 0, 0, 11, 12], [0, 1, 2, 3, 4, 5, 6]]),
    (8, 8, 1, [[0] * 8, [0, 0, 0, 0, 0, 0, 11, 12], [0, 0, 1, 2, 3, 4, 5, 6]])])
def test_histories_are_the_latest_events_the_latest_last(length, most, least, expected):
    history = (GraphInput("history_0", "history", ("seen0",), length, most, least=least),)
    assert tensors(history, {"seen0": lists(11, 12, 1, 2, 3, 4, 5, 6)}, 3)["history_0"].tolist() == expected


def test_histories_of_one_length():
    def found(length, most):
        history = (GraphInput("history_0", "history", ("seen0",), length, most),)
        return tensors(history, {"seen0": np.array([[0, 4, 5]])}, 1)["history_0"].tolist()

    assert found(None, 9) == found(3, 3) == [[0, 4, 5]]
    assert found(2, 2) == [[4, 5]]
    assert found(5, 5) == [[0, 0, 0, 4, 5]]


def test_times_become_gaps():
    times = lists(-30, -9, -100, -64, -3, -2, -1, 0)
    history = (GraphInput("history_0", "history", ("seen2",), 2, 2, (2, 6)),)
    found = tensors(history, {"seen2": times}, 3)["history_0"]
    expected = gap_ids(np.array([[30, 9], [1, 0]]), 2, 6)
    assert found.tolist() == [[0, 0], *expected.tolist()]


def test_the_tensors_of_a_row_are_those_of_many():
    inputs = graph_inputs(HISTORY, READS)
    random = np.random.default_rng(0)
    columns = {"n0": random.random(3), "n1": random.random(3), **{name: random.integers(0, 5, 3) for name in
               ("c0", "user", "target0")}, "c1": lists(*range(8)), "seen0": lists(*range(1, 9)),
               "seen2": lists(*range(-9, -1))}
    many = tensors(inputs, columns, 3)
    for row in range(3):
        part = slice(LISTS[row], LISTS[row + 1])
        one = {name: (column[0][part], np.array([0, part.stop - part.start])) if isinstance(column, tuple)
               else column[row:row + 1] for name, column in columns.items()}
        for name, array in tensors(inputs, one, 1).items():
            expected = many[name][row]
            assert array[0].tolist() == (expected[:array.shape[1]] if name == "bag_0" else expected).tolist()
            assert (expected[array.shape[1]:] == -1).all()


def test_histories_of_different_lengths_are_refused():
    inputs = tuple(GraphInput(f"history_{i}", "history", (f"seen{i}",), 2, 2) for i in range(2))
    other = (np.arange(8), np.array([0, 0, 3, 8]))
    with pytest.raises(DataError, match="row 1(?s:.*)3 values of 'seen1'"):
        tensors(inputs, {"seen0": lists(*range(8)), "seen1": other}, 3)
