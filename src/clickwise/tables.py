"""Frames of other libraries as Arrow tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from clickwise.arrow_files import plain
from clickwise.errors import DataError, UsageError, nearest


def as_table(data: Any, *, ignore: Sequence[str] = (), only: Collection[str] = (),
             required: Collection[str] = ()) -> pa.Table:
    """An Arrow table of a pandas or polars frame, an Arrow table, a dict of columns or a list of dicts; the index of a
    frame is no column. Columns of `ignore` are left out; where a frame has all that are `required`, no others than
    those of `only` are looked at. Raises DataError."""
    table = _table(data, only, required)
    _check_names(table.column_names)
    for name in ignore:
        if name not in table.column_names:
            raise UsageError("ignore", found=f"no column {name!r}", expected="a column of the table",
                             do=nearest(name, table.column_names))
    table = table.drop_columns(list(ignore))
    for index, field in enumerate(table.schema):  # plain values: files and engines do not know all of the others
        if pa.types.is_dictionary(field.type) or pa.types.is_string_view(field.type):
            chunks = [plain(chunk) for chunk in table.column(index).chunks]
            table = table.set_column(index, field.name, pa.chunked_array(chunks, plain(pa.nulls(0, field.type)).type))
    return table


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError("the table", found=f"two columns named {name!r}", expected="every name once",
                            do="rename one of them")


def _table(data: Any, only: Collection[str] = (), required: Collection[str] = ()) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    try:
        if type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns"):
            return _of_pandas(data, only, required)
        if isinstance(data, Mapping):
            return pa.table(dict(data))
        if isinstance(data, list):
            names = dict.fromkeys(name for row in data for name in row)  # rows may leave out what they do not have
            return pa.table({str(name): [row.get(name) for row in data] for name in names})
        return pa.table(data)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise DataError("the table", found=str(error).splitlines()[0][:200],
                        expected="a pandas or polars frame, an Arrow table or a dict of columns, each of one type",
                        do="cast a column of mixed values to text") from None


def _of_pandas(data: Any, only: Collection[str], required: Collection[str]) -> pa.Table:
    """As `pa.Table.from_pandas`, in a third of its time for a row."""
    names = list(data.columns)
    _check_names([str(name) for name in names])
    if only and all(name in names for name in required):
        names = [name for name in only if name in names]
    arrays = {}
    for name in names:
        column = data[name]
        try:
            if hasattr(column, "sparse"):
                column = column.sparse.to_dense()
            arrays[str(name)] = pa.array(column, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"the table, column {str(name)!r}", found=str(error).splitlines()[0][:200],
                            expected="values of one type", do="cast a column of mixed values to text") from None
    return pa.table(arrays)
