"""Runs on Outbrain and raw rows: the published sets are not for new rows, and say so."""

from __future__ import annotations

import json

import pytest
from outbrain_rows import random_tables, write_tables

import clickwise
from clickwise.encoding import Encoding
from clickwise.errors import DataError
from clickwise.prepare import run as prepare
from clickwise.verbs.predict import predict
from clickwise.verbs.train import train

SMALL = ["train.epochs=1", "train.batch_size=64", "train.evaluation_batch_size=1", "model.deep_hidden=[8]",
         "model.embedding_dim=2", "baselines=[]", "data.validation=null"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("outbrain") / "raw", random_tables(60, seed=2))


def columns(raw, out, name, **options):
    section = {"name": "outbrain", "folder": str(raw), "feature_set": name, "frequency_limit": 2, **options}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(out / name)}, "test")


@pytest.mark.parametrize("name", ["multihot", "profiles"])
def test_the_encoding_of_a_published_set_is_not_for_new_rows(raw, tmp_path, name):
    encoding = Encoding.load(columns(raw, tmp_path, name) / "preparation")
    assert not encoding.columns and f"feature_set={name} is as published" in encoding.not_for_new_rows


def test_predict_refuses_new_rows_for_a_published_set_in_one_message(raw, tmp_path):
    run = train("table/wide_deep", [f"data.path={columns(raw, tmp_path, 'v1_spark')}", *SMALL], out=tmp_path / "runs")
    rows = tmp_path / "rows.csv"
    rows.write_text("display_id,ad_id\n1,1\n")
    found = []
    for given in ({"source": rows}, {"replay": rows}, {"source": rows, "replay": rows}):
        with pytest.raises(DataError, match="not for new rows: dataset.feature_set=v1_spark") as caught:
            predict(run, **given)
        found.append(str(caught.value))
    assert len(set(found)) == 1 and "--input test" in found[0]
    with pytest.raises(DataError, match="not for new rows"):
        clickwise.load(run)
    assert predict(run)["rows"] > 0  # the rows that were prepared


def test_a_reason_that_is_no_text_is_refused(tmp_path):
    Encoding({}, {}, not_for_new_rows="so it is").save(tmp_path)
    assert Encoding.load(tmp_path).not_for_new_rows == "so it is"
    content = json.loads((tmp_path / "encoding.json").read_text())
    (tmp_path / "encoding.json").write_text(json.dumps(content | {"not_for_new_rows": 1}))
    with pytest.raises(DataError, match="cannot be understood"):
        Encoding.load(tmp_path)
