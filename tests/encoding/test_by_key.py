"""What is worked out by key gives the bits that an encoder gives without it, for one row and for many."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from kuairand_prepared import CATEGORICAL, NUMERICAL, TEST, prepared, table_of, write_raw

from clickwise.encoding import Column, Encoder, Encoding, RawColumn
from clickwise.encoding.by_key import MOST_KEYS, by_key
from clickwise.encoding.operations import Standardize, Vocabulary
from clickwise.encoding.raw_types import Float, Integer, Text
from clickwise.encoding.states import ListLookup, Lookup
from clickwise.encoding.states.keyed_table import write_keyed_table
from clickwise.encoding.vocabulary_file import VocabularyFile, write_vocabulary

OF_USER = {"follow_user_num", "user_impressions", "user_active_degree"}
OF_VIDEO = {"aspect_ratio", "author_click_rate", "author_id", "music_type", "tags"}


@pytest.fixture(scope="module")
def kuairand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    return Encoding.load(prepared(write_raw(folder / "raw"), "frozen", folder) / "preparation")


def bits(arrays):
    """By column its rows, to the bit."""
    return {name: [array[0][first:end].tolist() for first, end in zip(array[1], array[1][1:], strict=False)]
            if isinstance(array, tuple) else (array.dtype, array.tobytes()) for name, array in arrays.items()}


def assert_same(encoder, quick, table):
    assert bits(quick.columns(table).arrays) == bits(encoder.columns(table).arrays)
    assert [quick.row(row) for row in table.to_pylist()] == [encoder.row(row) for row in table.to_pylist()]


def test_kuairand(kuairand):
    encoder = Encoder(kuairand, [*NUMERICAL, *CATEGORICAL])
    tables = by_key(encoder)
    assert {table.key: set(table.names) for table in tables} == {"user_id": OF_USER, "video_id": OF_VIDEO}
    quick = Encoder(kuairand, encoder.names, by_key=tables)
    assert quick.needs == encoder.needs and quick.names == encoder.names
    rows = [*TEST[:60], *({**TEST[0], key: value} for key in ("user_id", "video_id") for value in (-7, 10**17, None))]
    assert_same(encoder, quick, table_of(rows))
    texts = table_of([{name: None if value is None else str(value) for name, value in row.items()} for row in rows])
    assert_same(encoder, quick, texts)
    assert_same(Encoder(kuairand, ["tags", "duration"]), quick.for_columns(["tags", "duration"]), table_of(rows))
    assert quick.for_columns(["duration"]).by_key == []


def of_shops(folder, keys, moods, sizes):
    """What is known of a shop: how it is, from three moods, its size, and a list of other shops."""
    write_vocabulary(folder / "moods", [pa.array(["glad", "sad", "mad"])])
    shop = RawColumn(Text() if isinstance(keys[0], str) else Integer())
    states = {"shops": Lookup(("shop",), {"mood": RawColumn(Text()), "size": RawColumn(Float())}),
              "near": ListLookup(("shop",), {"others": RawColumn(Text(), ",")})}
    values = {"shops": {"mood": pa.array(moods, pa.string()), "size": pa.array(sizes, pa.float64())},
              "near": {"others": pa.array([moods[:index % 3] for index in range(len(keys))], pa.list_(pa.string()))}}
    opened = {}
    for name, state in states.items():
        write_keyed_table(folder / name, {"shop": pa.array(keys)}, values[name])
        opened[name] = state.load(folder / name)
    mood = Vocabulary("moods").opened(VocabularyFile(folder / "moods"))
    return Encoding({"shop": shop, "price": RawColumn(Float())}, {
        "mood": Column("mood", (mood,), "int32"), "size": Column("size", (Standardize(2.0, 3.0),), "float16"),
        "others": Column("others", (mood,), "int8"), "price": Column("price", (), "float32"),
        "shop": Column("shop", (Vocabulary("shops").opened(VocabularyFile(folder / "shops" / "keys.vocabulary")),),
                       "int32")}, tables=opened)


@pytest.mark.parametrize("keys", [["0", "a b", "ü"], [0, 7, -3]])
def test_keys_of_every_kind(tmp_path, keys):
    encoding = of_shops(tmp_path, keys, ["sad", "glad", "sad"], [1.5, None, 7.0])
    encoder = Encoder(encoding)
    (table,) = by_key(encoder)
    assert table.names == ("mood", "size", "others")  # the key itself is not what is known of it
    shops = [*keys, None, "1", "nobody", keys[0]]
    assert_same(encoder, Encoder(encoding, by_key=[table]), pa.table({
        "shop": [None if shop is None else str(shop) for shop in shops], "price": np.arange(7.0)}))
    assert table.many(pa.array(keys[:0], pa.array(keys).type))["mood"].tolist() == []


def test_what_is_not_worked_out(tmp_path, kuairand):
    """What depends on a context, a value of which no number can be made, and tables that are too large."""
    contexts = Encoder(kuairand, ["video_tab_click_rate", "seconds_since_last", "earlier_today", "hour"])
    assert by_key(contexts) == []
    (tmp_path / "a").mkdir()
    encoding = of_shops(tmp_path / "a", [1, 2], ["sad", "mad"], [1e308, 0.0])
    assert by_key(Encoder(encoding, ["size"])) == []
    (tmp_path / "b").mkdir()
    encoding = of_shops(tmp_path / "b", list(range(MOST_KEYS + 1)), ["sad"] * (MOST_KEYS + 1), [0.0] * (MOST_KEYS + 1))
    assert by_key(Encoder(encoding, ["size"])) == []
