"""Amazon Books' runs take raw rows: users and items by name, histories by time or position, drawn rows among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from amazon_rows import DAY, products, review, with_unseen_items, write_lines
from fresh_process import predict_without_engines

import clickwise as cw
from clickwise.data.columns import read_columns
from clickwise.data.loader import Loader
from clickwise.encoding import Encoder, Encoding
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import run as prepare
from clickwise.prepare import summary
from clickwise.serve.exported import ExportedModel
from clickwise.serve.rank import encode, read_rank
from clickwise.serve.served import Served
from clickwise.verbs.predict import predict
from clickwise.verbs.train import train

MODELS = {"din": ["model.unit_mlp=[4]"], "dien": ["model.gru_size=4", "model.history_length=5"],
          "sim": ["model.gru_size=4", "model.short_length=3"], "din without categories": [
              "model.unit_mlp=[4]", "data.ignore=[user, category, category_2, category_history, category_2_history, "
              "negative_history]"]}
SMALL = ["train.steps=3", "train.batch_size=16", "train.evaluation_batch_size=1", "model.embedding_dim=4",
         "model.top_mlp=[8]", "baselines=[]", "metrics=[auc]"]


def prepared(out, **settings):
    reviews = [review(*row) for row in with_unseen_items()]
    section = {"name": "amazon_books", "reviews": [str(write_lines(out.parent / "reviews.json", reviews))],
               "metadata": [str(write_lines(out.parent / "meta.json", products(40)))], "min_events": 3,
               "history_length": 6, "categories": 2, **settings}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(out)}, "test")


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("amazon") / "columns")


def raw_rows(columns):
    return pq.read_table(columns / "preparation/rows/test.parquet")


def test_raw_rows_are_the_prepared_ones_to_the_bit(columns, tmp_path):
    assert summary(columns)["has_encoding"] and summary(columns)["rows_without_an_id"]["test"]
    are_the_prepared_ones(columns)
    with_gaps = prepared(tmp_path / "with_gaps", time_gap=True, categories=1)
    assert are_the_prepared_ones(with_gaps) == ["item_history", "category_history", "days_ago"]


def are_the_prepared_ones(columns):
    """Holds the raw rows of the test against its mapping; the features of the history."""
    spec, encoding = FeatureSpec.load(columns), Encoding.load(columns / "preparation")
    rows, mapping = raw_rows(columns), read_columns(spec, "test")
    (batch,) = Loader(mapping, spec, batch_size=mapping.rows).epoch(0)
    encoder = Encoder(encoding)
    found, ones = encoder.columns(rows).arrays, [encoder.row(row) for row in rows.to_pylist()]
    targets = dict(zip(spec.channels["target_item"], batch.target_item, strict=True))
    for name, expected in {"user_id": batch.user[0], "label": batch.label, **targets}.items():
        assert np.array_equal(found[name], expected.numpy()) and [row[name] for row in ones] == expected.tolist()
    windows = [ids.numpy() for ids in batch.history]
    for index, row in enumerate(ones):
        for name, window in zip(spec.channels["history"], windows, strict=True):
            values, offsets = found[name]
            assert values[offsets[index]:offsets[index + 1]].tolist() == row[name]
            known = np.array(row["item_history"], int) != 0  # of an unknown item nothing is seen
            ids = [1 + (-gap // DAY).bit_length() for gap in row[name]] if name == "days_ago" else row[name]
            events = (np.array(ids, int) * known).tolist()
            assert ([0] * 6 + events)[-6:] == window[index].tolist()
    return [*spec.channels["history"]]


def test_items_are_ranked_by_a_server_of_a_reader_of_now(runs, tmp_path):
    """Without positions: in the context of a reader and a time, or of a history that the request brings along."""
    run = runs["din without categories"]
    served = Served(ExportedModel(cw.load(run).export(tmp_path / "exported")), "amazon", "1")
    model, items = cw.load(run), [f"{item:010d}" for item in range(1, 12)]
    context = {"reviewerID": "U1", "unixReviewTime": 3 * DAY}
    mine = [item for user, item, time in with_unseen_items() if user == "U1" and time < 3 * DAY]
    assert len(mine) == 3
    for request in ({"context": context}, {"context": {**context, "reviewerID": "nobody"}, "history": mine}):
        found = served.score(encode(read_rank({**request, "candidates": items}, served), served))
        rows = [{**context, "asin": item} for item in items]
        np.testing.assert_allclose(found, model.predict_proba(rows), atol=1e-6)
        np.testing.assert_allclose(served.model.score(rows), found, atol=1e-6)


def test_a_history_is_what_lies_before_the_time_of_a_row(columns):
    """Of a row without a position; to the second, so that a row of now sees all there is."""
    encoding, spec = Encoding.load(columns / "preparation"), FeatureSpec.load(columns)
    encoder = Encoder(encoding, ["item", "category", *spec.channels["history"]])
    events = {user: [encoder.row({"reviewerID": user, "asin": item, "unixReviewTime": 0})
                     | {"time": time} for time, item in sorted((time, item) for other, item, time in with_unseen_items()
                                                               if other == user)] for user in ("U1", "U2")}
    rows = [{"reviewerID": user, "asin": "x", "unixReviewTime": time} for user in events
            for time in (0, 1, 3 * DAY, 3 * DAY + 1, 7 * DAY, 10**12, None)]
    expected = [[event for event in events[row["reviewerID"]] if event["time"] < (row["unixReviewTime"] or 0)][-6:]
                for row in rows]
    assert {len(before) for before in expected} >= {0, 1, 3, 4, 6}
    many = encoder.columns(pa.Table.from_pylist(rows)).arrays
    for name in ("item", "category"):
        lists = [[event[name] for event in before] for before in expected]
        assert [encoder.row(row)[f"{name}_history"] for row in rows] == lists
        values, ends = many[f"{name}_history"]
        assert [values[first:end].tolist() for first, end in zip(ends[:-1], ends[1:], strict=True)] == lists


@pytest.fixture(scope="module")
def runs(columns, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return {name: train(f"amazon_books/{name.split()[0]}", [f"data.path={columns}", *SMALL, *words], out=out)
            for name, words in MODELS.items()}


def test_every_model_scores_raw_rows_as_the_mapping_without_its_data(columns, runs, tmp_path):
    for run in runs.values():
        predict(run, source=Path("test"), out=run / "of_test.parquet")
    rows = raw_rows(columns)
    pq.write_table(rows, tmp_path / "rows.parquet")
    away = columns.rename(columns.with_name("away"))
    try:
        asked = [{"folder": run, "source": "rows.parquet", "out": f"{name}.parquet"} for name, run in runs.items()]
        predict_without_engines(tmp_path, asked)
        for name, run in runs.items():
            found, expected = (pq.read_table(path)["logit"].to_numpy() for path in (
                tmp_path / f"{name}.parquet", run / "of_test.parquet"))
            np.testing.assert_array_equal(found, expected, err_msg=name)
            assert pq.read_table(run / "examples.parquet")["logit"].to_numpy().tolist() == found.tolist()
            model = cw.load(run)
            np.testing.assert_array_equal(model.predict_logit(rows), expected)
    finally:
        away.rename(columns)


def test_readers_and_items_that_nobody_knows(columns):
    """A new reader has no history; any large position means all that is known of one, as any late time does."""
    encoder = Encoder(Encoding.load(columns / "preparation"))
    known = raw_rows(columns).to_pylist()[0]
    new = encoder.row({"reviewerID": "nobody", "asin": "nothing", "unixReviewTime": 10**9, "label": 0})
    assert new == {"label": 0, "user_id": 0, "item": 0, "category": 0, "category_2": 0, "item_history": [],
                   "category_history": [], "category_2_history": []}
    cases = [{"position": 2**63 - 1}, {"position": None, "unixReviewTime": 10**12}, {"position": 0}, {"position": -1},
             {"unixReviewTime": None}]
    of_all, of_all_too, *of_none = (encoder.row({**known, **case})["item_history"] for case in cases)
    assert of_all == of_all_too and len(of_all) == min(6, known["position"] + 1) and of_none == [[]] * 3
    rows = [{**known, **case} for case in ({"reviewerID": None, "asin": None}, {"reviewerID": "nobody"}, *cases)]
    many = encoder.columns(pa.Table.from_pylist(rows)).arrays
    assert many["user_id"].tolist()[:2] == [0, 0]
    assert np.diff(many["item_history"][1]).tolist() == [0, 0, len(of_all), len(of_all), 0, 0, 0]


def test_names_with_space_around_them_have_no_encoding(tmp_path):
    reviews = [review(f" {user}" if user == "U3" else user, item, time) for user, item, time in with_unseen_items()]
    section = {"name": "amazon_books", "reviews": [str(write_lines(tmp_path / "reviews.json", reviews))],
               "metadata": [str(write_lines(tmp_path / "meta.json", products(40)))], "min_events": 3}
    out = prepare({"dataset": section, "out": str(tmp_path / "out")}, "test")
    assert summary(out)["has_encoding"] is False and not (out / "preparation/encoding.json").exists()


def prepare_with(given, files, out):
    section = {"name": "amazon_books", "reviews": ["nowhere"], "metadata": ["nowhere"],
               "input": [str(file) for file in files]}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(out)}, "test", given=given)


@pytest.mark.parametrize("settings", [{}, {"time_gap": True, "categories": 1}], ids=["", "time gaps"])
def test_further_rows_become_the_batches_of_the_test_mapping(columns, runs, tmp_path, settings):
    out = prepared(tmp_path / "of_gaps", **settings) if settings else columns
    more = prepare_with(out, [out / "preparation/rows/test.parquet"], tmp_path / "more")
    batches = []
    for folder, mapping in ((more, "input"), (out, "test")):
        spec = FeatureSpec.load(folder)
        found = read_columns(spec, mapping)
        batches.append(next(iter(Loader(found, spec, batch_size=found.rows).epoch(0))))
    ours, theirs = batches
    assert ours.label.tolist() == theirs.label.tolist() and ours.history[0].any()
    for channel in ("user", "target_item", "history"):
        for found, expected in zip(getattr(ours, channel), getattr(theirs, channel), strict=True):
            assert found.tolist() == expected.tolist(), channel
    if settings:
        return
    for run in runs.values():
        scores = []
        for name, data in (("test", columns), ("input", more)):
            predict(run, source=Path(name), out=tmp_path / "p.parquet", overrides=[f"data.path={data}"])
            scores.append(pq.read_table(tmp_path / "p.parquet")["logit"].to_pylist())
        assert scores[0] == scores[1]


def test_further_reviews_are_rows_without_a_label(columns, runs, tmp_path):
    """As they come: each sees what its reader did before its time, in the log of the training."""
    reviews = [("U1", f"{item:010d}", 9 * DAY) for item in range(9)] + [("nobody", f"{5:010d}", DAY)]
    write_lines(tmp_path / "new.json", [review(*row) for row in reviews])
    more = prepare_with(runs["dien"], [tmp_path / "new.json"], tmp_path / "more")
    assert "label" not in FeatureSpec.load(more).channels
    ours, theirs = (tmp_path / name for name in ("ours.parquet", "theirs.parquet"))
    assert predict(runs["dien"], source=Path("input"), out=ours, overrides=[f"data.path={more}"])["rows"] == 10
    predict(runs["dien"], source=tmp_path / "new.json", out=theirs)
    assert pq.read_table(ours)["logit"].equals(pq.read_table(theirs)["logit"])
