"""Arrow arrays without pandas: the same as pyarrow's own ways give."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.arrow_arrays import dtype_of, filled, of_numbers, of_texts, of_values, to_numpy

VALUES = {pa.bool_(): st.booleans(), pa.int8(): st.integers(-128, 127), pa.int64(): st.integers(-2**63, 2**63 - 1),
          pa.uint32(): st.integers(0, 2**32 - 1), pa.float64(): st.floats(allow_nan=False)}


@st.composite
def columns(draw):
    """An array, part of one, or one in two chunks, with nulls or without."""
    type_ = draw(st.sampled_from(list(VALUES)))
    elements = VALUES[type_] | st.none() if draw(st.booleans()) else VALUES[type_]
    column = pa.array(draw(st.lists(elements, max_size=30)), type_)
    column = column[draw(st.integers(0, 9)):]
    return pa.chunked_array([column[:3], column[3:]]) if draw(st.booleans()) else column


@settings(deadline=None)
@given(columns())
def test_numpy_s_values_are_those_of_pyarrow(column):
    found, expected = to_numpy(column), column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else \
        column.to_numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None)
@given(columns())
def test_nulls_are_filled_as_pyarrow_fills_them(column):
    found, expected = filled(column, 1), column.fill_null(pa.scalar(1).cast(column.type)).to_pylist()
    assert found.tolist() == expected
    assert of_numbers(found).equals(pa.array(expected, column.type))


@settings(deadline=None)
@given(columns())
def test_numbers_and_what_is_missing_become_the_array_they_came_from(column):
    missing = np.array([value is None for value in column.to_pylist()], bool)
    assert of_numbers(filled(column, 0), missing).equals(pa.array(column.to_pylist(), column.type))


@pytest.mark.parametrize("values, type_", [
    ([True, None, False], pa.bool_()), ([1, None, -3], pa.int64()), ([0.5, None], pa.float64()),
    (["ä", None, ""], pa.string()), ([], pa.int64())])
def test_python_s_values(values, type_):
    assert of_values(values, type_).equals(pa.array(values, type_))
    if type_ == pa.string():
        assert of_texts(values).equals(pa.array(values, type_))


@pytest.mark.parametrize("type_", [pa.bool_(), pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.float16(),
                                   pa.float32(), pa.float64()], ids=str)
def test_numpy_s_type_is_that_of_pyarrow(type_):
    assert dtype_of(type_) == np.dtype(type_.to_pandas_dtype())
