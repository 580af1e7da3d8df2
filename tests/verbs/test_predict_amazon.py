"""Amazon Books' runs take raw rows: users and items by name, histories cut by position, drawn rows among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from amazon_rows import products, review, with_unseen_items, write_lines
from fresh_process import predict_without_engines

import clickwise as cw
from clickwise.data.columns import read_columns
from clickwise.data.loader import Loader
from clickwise.encoding import Encoder, Encoding
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import run as prepare
from clickwise.prepare import summary
from clickwise.verbs.predict import predict
from clickwise.verbs.train import train

MODELS = {"din": ["model.unit_mlp=[4]"], "dien": ["model.gru_size=4", "model.history_length=5"],
          "sim": ["model.gru_size=4", "model.short_length=3"], "din without categories": [
              "model.unit_mlp=[4]", "data.ignore=[user, category, category_2, category_history, category_2_history, "
              "negative_history]"]}
SMALL = ["train.steps=3", "train.batch_size=16", "train.evaluation_batch_size=1", "model.embedding_dim=4",
         "model.top_mlp=[8]", "baselines=[]", "metrics=[auc]"]


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amazon")
    reviews = [review(*row) for row in with_unseen_items()]
    section = {"name": "amazon_books", "reviews": [str(write_lines(folder / "reviews.json", reviews))],
               "metadata": [str(write_lines(folder / "meta.json", products(40)))], "min_events": 3,
               "history_length": 6, "categories": 2}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(folder / "columns")}, "test")


def raw_rows(columns):
    return pq.read_table(columns / "preparation/rows/test.parquet")


def test_raw_rows_are_the_prepared_ones_to_the_bit(columns):
    assert summary(columns)["has_encoding"] and summary(columns)["rows_without_an_id"]["test"]
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
            events = (np.array(row[name], int) * known).tolist()
            assert ([0] * 6 + events)[-6:] == window[index].tolist()


def test_every_model_scores_raw_rows_as_the_mapping_without_its_data(columns, tmp_path):
    runs = {name: train(f"amazon_books/{name.split()[0]}", [f"data.path={columns}", *SMALL, *words], out=tmp_path / "r")
            for name, words in MODELS.items()}
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
    """A new reader has no history; any large position means all that is known of one."""
    encoder = Encoder(Encoding.load(columns / "preparation"))
    known = raw_rows(columns).to_pylist()[0]
    new = encoder.row({"reviewerID": "nobody", "asin": "nothing", "position": 10**9, "label": 0})
    assert new == {"label": 0, "user_id": 0, "item": 0, "category": 0, "category_2": 0, "item_history": [],
                   "category_history": [], "category_2_history": []}
    of_all, of_none, of_none_too = (encoder.row({**known, "position": position})["item_history"]
                                    for position in (10**9, 0, None))
    assert len(of_all) == min(6, known["position"] + 1) and of_none == of_none_too == []
    many = encoder.columns(pa.table({"reviewerID": [None, "nobody", known["reviewerID"]], "asin": [None, "x", None],
                                     "position": [3, 3, 10**9], "label": [0, 0, 0]})).arrays
    assert many["user_id"].tolist()[:2] == [0, 0] and many["item_history"][1].tolist() == [0, 0, 0, len(of_all)]


def test_names_with_space_around_them_have_no_encoding(tmp_path):
    reviews = [review(f" {user}" if user == "U3" else user, item, time) for user, item, time in with_unseen_items()]
    section = {"name": "amazon_books", "reviews": [str(write_lines(tmp_path / "reviews.json", reviews))],
               "metadata": [str(write_lines(tmp_path / "meta.json", products(40)))], "min_events": 3}
    out = prepare({"dataset": section, "out": str(tmp_path / "out")}, "test")
    assert summary(out)["has_encoding"] is False and not (out / "preparation/encoding.json").exists()


def test_time_gaps_have_no_encoding(columns, tmp_path):
    section = {"name": "amazon_books", "reviews": [str(columns.parent / "reviews.json")], "min_events": 3,
               "metadata": [str(columns.parent / "meta.json")], "time_gap": True}
    out = prepare({"dataset": section, "out": str(tmp_path / "out")}, "test")
    assert summary(out)["has_encoding"] is False and not (out / "preparation/encoding.json").exists()
