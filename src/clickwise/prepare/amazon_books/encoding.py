"""Amazon's preparation as data: what raw rows go through, and the states that they are looked up in, which stand still.

A raw row says its time, and sees its user's events before that. Times are whole days, in which no order is known, but
rows of the log have one: `position`, which is optional, says how many events came before. A row that is drawn stands in
the place of the event beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from clickwise.encoding import Column, Encoding, RawColumn
from clickwise.encoding.document import STATES
from clickwise.encoding.operations import Vocabulary
from clickwise.encoding.raw_types import SPACE, Boolean, Integer, Text
from clickwise.encoding.states import EventLog, Lookup
from clickwise.encoding.states.event_log import TIME
from clickwise.encoding.states.keyed_table import write_keyed_table
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare.amazon_books.drawn import ROWS, fits_in_memory
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.written import EXAMPLE_ROWS, EXAMPLES, check_examples, save_encoding

WHEN, POSITION = "unixReviewTime", "position"
RAW = {"reviewerID": RawColumn(Text()), "asin": RawColumn(Text()), WHEN: RawColumn(Integer()),
       POSITION: RawColumn(Integer(), optional=True), "label": RawColumn(Boolean())}
ITEMS, EVENTS, PRODUCT = "items", "events", "product_"


def write_encoding(folder: PreparationFolder, spec: FeatureSpec) -> bool:
    """Writes preparation/encoding.json, its states, and examples of raw rows; whether it did. There is none where the
    log is too large for the memory that the recipe allows, or where names of readers or products have space around
    them, which raw rows are read without."""
    log = folder.dataset / "events"
    offsets = np.fromfile(log / "offsets.bin", np.int64)
    if not fits_in_memory(folder, int(offsets[-1])):
        return False
    states = folder.preparation / STATES
    categories = [name for name in spec.channels["target_item"] if name != "item"]
    items = parquet.read_table(folder.preparation / "items.parquet", columns=["item", *categories])
    users = parquet.read_table(folder.preparation / "vocabularies" / "user_id.parquet", columns=["value"])
    if not (_are_trimmed(items["item"]) and _are_trimmed(users["value"])):
        return False
    write_keyed_table(states / ITEMS, {"asin": _whole(items["item"])},
                      {PRODUCT + name: _whole(items[name]) for name in categories})
    # What is given → of which column's ids, or how long ago.
    kept = dict(zip(spec.channels["history"], ("item", *categories, TIME), strict=False))
    offsets = offsets[1:]  # user 0 is nobody
    columns = {TIME: _times(folder, int(offsets[-1])), **{
        name: np.fromfile(log / f"{of}.bin", spec.features[name].dtype) for name, of in kept.items() if of != TIME}}
    write_keyed_table(states / EVENTS, {"reviewerID": _whole(users["value"])}, {
        name: pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(column)) for name, column in columns.items()})
    length, = spec.features["item_history"].dimensions
    tables = {ITEMS: Lookup(("asin",), {PRODUCT + name: RawColumn(Text()) for name in categories}),
              EVENTS: EventLog(("reviewerID",), dict.fromkeys(kept, RawColumn(Integer())), WHEN, length=length,
                               features=kept, position=POSITION)}
    save_encoding(folder, Encoding(RAW, _columns(spec, categories, kept), tables=tables))
    rows = parquet.read_table(folder.preparation / ROWS / "test.parquet", columns=list(RAW))
    parquet.write_table(rows.slice(0, EXAMPLE_ROWS), folder.preparation / EXAMPLES)
    check_examples(folder, spec, Encoding.load(folder.preparation))
    return True


def _columns(spec: FeatureSpec, categories: Sequence[str], histories: Mapping[str, str]) -> Mapping[str, Column]:
    of = {"user_id": "reviewerID", "item": "asin", **{name: PRODUCT + name for name in categories}}
    made = {name: Column(raw, (Vocabulary("category" if name in categories else name),), spec.features[name].dtype)
            for name, raw in of.items()}
    histories = {name: Column(name, (), "int64" if of == TIME else spec.features[name].dtype)
                 for name, of in histories.items()}
    return {"label": Column("label", (), spec.features["label"].dtype), **made, **histories}


def _times(folder: PreparationFolder, events: int) -> np.ndarray:
    """The times of all events in the order of the log."""
    engine, times = folder.engine, np.empty(events, np.int64)
    for batch in engine.batches(engine.numbered(engine.table("events")).select("row", "time")):
        times[batch.column(0).to_numpy()] = batch.column(1).to_numpy()
    return times


def _are_trimmed(names: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.equal(pc.utf8_trim(names, SPACE), names)).as_py())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found
