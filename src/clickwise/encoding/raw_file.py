"""Raw rows of one file: delimited text, Parquet or JSON lines, a block of exactly so many at a time. The encoding says
what they mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from clickwise.arrow_files import open_parquet, text_batches
from clickwise.errors import DataError, nearest_column
from clickwise.given_files import check_is_file
from clickwise.json_lines import JsonTable, is_json_lines, look
from clickwise.text_files import DELIMITERS, TextLayout, find_layout, first_row, plain_text

TEXT_ENDINGS = {".csv": ",", ".tsv": "\t", ".txt": "\t", "": "\t"}


@dataclasses.dataclass(frozen=True)
class RawFile:
    """A file with named `columns`; `text` is how delimited text is written, `json` what was found in JSON lines."""

    path: Path
    columns: tuple[str, ...]
    text: TextLayout | None = None
    json: JsonTable | None = None

    @classmethod
    def open(cls, path: Path, needs: Mapping[str, object], layout: Mapping[str, Any] | None = None) -> RawFile:
        """The file, which has the columns `needs`, name → what it holds, in any order.

        `layout` names the columns of text without a header (`delimiter`, `columns`, and which of them, the `label`, may
        be absent). Raises DataError where a column is missing or there twice.
        """
        check_is_file(path, "a file of raw rows")
        if is_json_lines(path):
            json = look([path])
            json.check(needs)
            return cls(path, tuple(json.names), json=json)
        ending = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
        if ending == ".parquet":
            with open_parquet(path) as file:
                found = cls(path, tuple(file.schema_arrow.names))
        else:
            if (ending if path.suffix != ".gz" or len(path.suffixes) > 1 else "") not in TEXT_ENDINGS:
                raise DataError(path, found=f"the ending {path.suffix!r}",
                                expected="a file that ends in .parquet, .csv, .tsv or .jsonl, or in .gz behind these")
            found = _text_file(path, TEXT_ENDINGS.get(ending, "\t"), needs, layout)
        for name, held in needs.items():
            if name not in found.columns:
                raise DataError(path, found=f"no column {name!r} among {len(found.columns)}",
                                expected=f"{name}: {held}", do=nearest_column(name, found.columns))
            if found.columns.count(name) > 1:
                raise DataError(path, found=f"{found.columns.count(name)} columns named {name!r}",
                                expected="every name once")
        return found

    def having(self, columns: Iterable[str]) -> list[str]:
        """Those of the columns that it has: optional ones may be absent."""
        return [name for name in columns if name in self.columns]

    def rows(self) -> int | None:
        """How many there are, where the file says so."""
        if self.json is not None:
            return self.json.rows[self.path]
        if self.text is not None:
            return None
        with open_parquet(self.path) as file:
            return file.metadata.num_rows

    def blocks(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Tables of `columns`, `rows` rows each but the last; of delimited text all values are texts. None where there
        are no rows."""
        pending: list[pa.RecordBatch] = []
        count = 0
        for batch in self._batches(list(columns), rows):
            pending.append(batch)
            count += len(batch)
            while count >= rows:
                table = pa.Table.from_batches(pending)
                yield table.slice(0, rows).combine_chunks()
                pending, count = table.slice(rows).to_batches(), count - rows
        if count:
            yield pa.Table.from_batches(pending).combine_chunks()

    def _batches(self, columns: list[str], rows: int) -> Iterable[pa.RecordBatch]:
        if self.json is not None:
            yield from self.json.batches(self.path, columns, rows)
            return
        if self.text is None:
            with open_parquet(self.path) as file:
                try:
                    yield from file.iter_batches(min(rows, 1 << 16), columns=columns)
                except (pa.ArrowException, OSError) as error:
                    raise DataError(self.path, found=str(error).splitlines()[0], expected="a whole Parquet file",
                                    do="write or copy it again") from None
            return
        with plain_text(self.path, self.text) as plain:
            yield from text_batches(plain, list(self.columns), dict.fromkeys(columns, pa.string()), rows=rows,
                                    named=self.path)


def _text_file(path: Path, delimiter: str, needs: Mapping[str, object], layout: Mapping[str, Any] | None) -> RawFile:
    for other in (delimiter, *DELIMITERS):
        text = find_layout(path, delimiter=other, header=True)
        fields = first_row(path, text)
        if set(needs) <= set(fields):
            return RawFile(path, tuple(fields), text)
    if layout is not None:
        text = find_layout(path, delimiter=layout["delimiter"], header=False, quote=layout.get("quote"))
        columns, fields = list(layout["columns"]), first_row(path, text)
        if len(fields) == len(columns) - 1 and layout.get("label") in columns:
            columns.remove(layout["label"])
        if len(fields) == len(columns):
            return RawFile(path, tuple(columns), text)
    text = find_layout(path, delimiter=delimiter, header=True)
    return RawFile(path, tuple(first_row(path, text)), text)
