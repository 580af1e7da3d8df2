"""Every operation has three forms; they give the same bits. A new operation joins by a line of CASES."""

from __future__ import annotations

import hashlib
import math
import struct

import ibis
import numpy as np
import pyarrow as pa
import pytest
from engine_rows import by_row
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clickwise.encoding import Column, vocabulary_file
from clickwise.encoding.further_operations import (
    AsFloat32,
    DaysSince,
    FirstCharacters,
    IsKnown,
    LogitRateOrPrior,
    MissingIf,
    Plus,
    RareVocabulary,
    Remainder,
    SparseProduct,
)
from clickwise.encoding.operations import (
    OPERATIONS,
    Above,
    Bins,
    DividedBy,
    Hash60,
    Is,
    Joined,
    LogitRate,
    LogPlusOne,
    LogShifted,
    OrElse,
    OrLeast,
    OrZero,
    SignedLog,
    Standardize,
    Vocabulary,
    Weekday,
    WholePart,
)
from clickwise.encoding.vocabulary_file import VocabularyFile, write_vocabulary
from clickwise.prepare.encode import encode

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.none() | st.floats(allow_nan=False) | st.integers(-10, 10**6).map(float) | st.just(-0.0)
integers = st.none() | st.integers(-2**63, 2**63 - 1) | st.integers(-3, 12)
texts = st.none() | st.sampled_from(["a", "b", "é", "x" * 9, "y" * 70, "ab"]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=90)
CASES = {
    "log_shifted": (LogShifted(3.0), pa.float64(), numbers),
    "signed_log": (SignedLog(), pa.float64(), numbers),
    "standardize": (Standardize(1.1, 0.3), pa.float64(), numbers),
    "standardize far apart": (Standardize(-1e308, 9e307), pa.float64(), numbers),
    "or_zero": (OrZero(), pa.float64(), numbers),
    "or_zero of integers": (OrZero(), pa.int64(), integers),
    "bins": (Bins((-2.5, 0.0, 1.0, 7.5, 1e300)), pa.float64(), numbers),
    "one bin": (Bins((0.0,)), pa.float64(), numbers),
    "or_least": (OrLeast("int64"), pa.int64(), integers),
    "hash60": (Hash60(), pa.string(), texts),
    "hash60 of integers": (Hash60(), pa.int64(), integers),
    "is": (Is("é"), pa.string(), texts),
    "is of integers": (Is(7), pa.int64(), integers),
    "is one of several": (Is(("é", "b", "")), pa.string(), texts),
    "is one of several integers": (Is((7, -1)), pa.int64(), integers),
    "above": (Above(2.5), pa.float64(), numbers),
    "log_plus_one": (LogPlusOne(), pa.float64(), numbers),
    "log_plus_one of integers": (LogPlusOne(), pa.int64(), integers),
    "divided_by": (DividedBy(1000.0), pa.float64(), numbers),
    "whole_part": (WholePart(100), pa.int64(), st.none() | st.integers(-9999, 2**40)),
    "weekday": (Weekday(), pa.int64(), st.none() | st.dates().map(lambda day: int(f"{day:%Y%m%d}"))),
    "or_else of integers": (OrElse(-1), pa.int64(), integers),
    "or_else": (OrElse("é"), pa.string(), texts),
    "first_characters": (FirstCharacters(2), pa.string(), texts),
    "missing_if": (MissingIf("b"), pa.string(), texts),
    "plus": (Plus(1), pa.int64(), st.none() | st.integers(-2**40, 2**40)),
    "remainder": (Remainder(7), pa.int64(), st.none() | st.integers(-2**62, 2**62)),
    "as_float32": (AsFloat32(), pa.float64(), st.none() | st.floats(-1e30, 1e30)),
    "is_known": (IsKnown(), pa.int64(), integers),
    "is_known of numbers": (IsKnown(), pa.float64(), numbers),
}


counted = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(lambda pair: (max(pair), min(pair)))
OF_TWO = {"logit_rate": (LogitRate(0.3, 10.0), st.tuples(st.none(), st.none()) | counted),
          "logit_rate_or_prior": (LogitRateOrPrior(0.3, 10.0), st.tuples(st.none(), st.none()) | counted),
          "days_since": (DaysSince(1_465_876_799_998, 3650), st.tuples(
              st.none() | st.integers(-10**10, 10**10), st.none() | st.integers(-10**10, 10**10))),
          "joined": (Joined(10**8), st.tuples(st.none() | st.integers(0, 10**8), st.none() | st.integers(0, 10**8)))}


@pytest.fixture(scope="module", autouse=True)
def few_values_are_looked_up_as_many_are():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary_file, "FEW", 0)
        yield


def stored(engine, values, arrow):
    return engine.materialise(ibis.memtable(pa.table({"row": range(len(values)), "x": pa.array(values, arrow)})), "t")


def bits(value):
    return value if isinstance(value, str) else struct.pack("<d", float(value)) if value is not None else None


def test_every_operation_is_here():
    assert {operation.do for operation, *_ in [*CASES.values(), *OF_TWO.values()]} | {
        "vocabulary", "rare_vocabulary", "sparse_product"} == set(OPERATIONS)


@pytest.mark.parametrize("case", CASES)
@QUICK
@given(data=st.data())
def test_forms_agree(engine, case, data):
    operation, arrow, values = CASES[case]
    values = data.draw(st.lists(values, min_size=1, max_size=30))
    table = stored(engine, values, arrow)
    bulk = by_row(engine, table.select("row", x=operation.bulk(table.x, engine.parse_hex)))
    one = [operation.one(value) for value in values]
    assert [*map(bits, bulk)] == [*map(bits, one)]
    column = pa.array(values, arrow)
    many = operation.many(column.to_numpy(zero_copy_only=False) if arrow == pa.float64() else column)
    many = [None if value is None or value != value else value for value in
            (many.to_pylist() if isinstance(many, pa.Array) else many.tolist())]
    assert [*map(bits, many)] == [*map(bits, one)]


@pytest.mark.parametrize("case", OF_TWO)
@QUICK
@given(data=st.data())
def test_forms_of_two_columns_agree(engine, case, data):
    operation, pairs = OF_TWO[case]
    x, y = zip(*data.draw(st.lists(pairs, min_size=1, max_size=30)), strict=True)
    columns = [pa.array(values, pa.int64()) for values in (x, y)]
    table = engine.materialise(ibis.memtable(pa.table({"row": range(len(x)), "x": columns[0], "y": columns[1]})), "t")
    bulk = by_row(engine, table.select("row", x=operation.bulk(table.x, table.y)))
    one = [operation.one(*pair) for pair in zip(x, y, strict=True)]
    many = operation.many(*columns)
    many = many.tolist() if isinstance(many, np.ndarray) else many.to_pylist()
    many = [None if value is None or value != value else value for value in many]
    assert [*map(bits, bulk)] == [*map(bits, one)] == [*map(bits, many)]


@pytest.mark.parametrize("arrow, values", [(pa.string(), texts), (pa.int64(), integers)])
@QUICK
@given(data=st.data(), hash_buckets=st.sampled_from([0, 7]))
def test_vocabulary_forms_agree(engine, tmp_path_factory, arrow, values, data, hash_buckets):
    given = data.draw(st.lists(values, min_size=1, max_size=30))
    known = data.draw(st.lists(values.filter(lambda value: value is not None), max_size=20, unique=True))
    path = tmp_path_factory.mktemp("v") / "x"
    write_vocabulary(path, [pa.array(known, arrow)])
    operation = Vocabulary("x", hash_buckets).opened(VocabularyFile(path))
    one = [operation.one(value) for value in given]
    assert operation.many(pa.array(given, arrow)).tolist() == one
    ids = {value: id_ for id_, value in enumerate(known, 1)}
    assert one == [0 if value is None else ids.get(value) or (
        len(known) + 1 + Hash60().one(value) % hash_buckets if hash_buckets else 0) for value in given]
    engine.materialise(ibis.memtable(pa.table({"value": pa.array(known, arrow), "id": pa.array(
        range(1, len(known) + 1), pa.int32())})), "vocabulary_x")
    encoded = encode(engine, stored(engine, given, arrow), {"x": Column("x", (operation,), "int32")})
    assert by_row(engine, encoded) == one


@QUICK
@given(st.lists(st.text(max_size=200), unique=True, max_size=200), st.lists(st.text(max_size=200), max_size=50))
@example(["", "a", "a\0", "\0a", "x" * 64, "x" * 65, "x" * 63 + "y"], ["x" * 66, "b"])
def test_vocabulary_file_of_texts(tmp_path_factory, known, others):
    known = [text for text in known if text.isprintable() or text.isascii()]
    others = [text for text in others if text.isprintable() or text.isascii()]
    path = tmp_path_factory.mktemp("v") / "x"
    write_vocabulary(path, [pa.array(known[:3], pa.string()), pa.array(known[3:], pa.string())])
    file, ids = VocabularyFile(path), {text: id_ for id_, text in enumerate(known, 1)}
    asked = known[::-1] + others
    assert [file.find(text) for text in asked] == [ids.get(text, 0) for text in asked]
    found = file.find_all(pa.array(["?", *asked], pa.string()).slice(1)).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary_file, "FEW", 10**6)
        one_by_one = file.find_all(pa.array(asked, pa.string())).tolist()
    assert found == one_by_one == [ids.get(text, 0) for text in asked]


def test_hash60_is_what_any_program_works_out():
    assert Hash60().one("é") == int(hashlib.md5("é".encode()).hexdigest()[:15], 16)


def test_numbers_by_hand():
    x = np.array([math.nan, 0.0, math.e - 1, 1 - math.e, -5.0])
    np.testing.assert_allclose(SignedLog().many(x)[1:4], [0, 1, -1], rtol=1e-15)
    np.testing.assert_allclose(LogShifted(3.0).many(x), [0, math.log(3), math.log(math.e + 2), math.log(4 - math.e), 0])
    assert Standardize(1.0, 2.0).many(np.array([3.0, math.nan])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("arrow, values", [(pa.string(), texts), (pa.int64(), integers)])
@QUICK
@given(data=st.data())
def test_a_vocabulary_may_have_an_id_for_what_is_rare(tmp_path_factory, arrow, values, data):
    """Missing 0, any other value 1, those that are known from 2 on."""
    given = data.draw(st.lists(values, min_size=1, max_size=30))
    known = data.draw(st.lists(values.filter(lambda value: value is not None), max_size=20, unique=True))
    path = tmp_path_factory.mktemp("v") / "x"
    write_vocabulary(path, [pa.array(known, arrow)])
    operation = RareVocabulary("x").opened(VocabularyFile(path))
    expected = [0 if value is None else known.index(value) + 2 if value in known else 1 for value in given]
    assert [operation.one(value) for value in given] == operation.many(pa.array(given, arrow)).tolist() == expected
    assert operation.is_unseen(np.array(expected)).tolist() == [value not in known for value in given]


vectors = st.none() | st.dictionaries(st.integers(0, 20), st.floats(0, 1), max_size=12)


@QUICK
@given(st.lists(st.tuples(vectors, vectors), min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_a_sparse_product_has_the_same_bits_in_any_order(pairs, dice):
    operation = SparseProduct()

    def lists(vector):
        if vector is None:
            return None, None
        items = list(vector.items())
        dice.shuffle(items)
        return [place for place, _ in items], [weight for _, weight in items]

    rows = [[(*lists(x), *lists(y)) for x, y in pairs] for _ in range(2)]
    found = [[operation.one(*row) for row in order] for order in rows]
    kinds = (pa.list_(pa.int64()), pa.list_(pa.float64())) * 2
    many = operation.many(*(pa.array(column, kind) for column, kind in zip(zip(*rows[0], strict=True), kinds,
                                                                         strict=True)))
    assert [*map(bits, found[0])] == [*map(bits, found[1])] == [*map(bits, many.tolist())]
    for (x, y), value in zip(pairs, found[0], strict=True):
        x, y = x or {}, y or {}
        assert value == pytest.approx(math.fsum(x[place] * y[place] for place in x if place in y), abs=1e-10)
