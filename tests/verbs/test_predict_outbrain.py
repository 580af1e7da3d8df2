"""Runs on Outbrain and raw rows: our own set takes whole displays, the published sets are not for new rows."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fresh_process import predict_without_engines
from outbrain_rows import random_tables, write_tables
from prepared_columns import read

import clickwise
from clickwise.encoding import Encoder, Encoding
from clickwise.errors import DataError
from clickwise.prepare import further_rows
from clickwise.prepare import run as prepare
from clickwise.verbs import predict_rows
from clickwise.verbs.predict import predict
from clickwise.verbs.train import train

TABLES = random_tables(60, seed=2)
SMALL = ["train.epochs=1", "train.batch_size=64", "train.evaluation_batch_size=1", "model.embedding_dim=2",
         "baselines=[]", "data.validation=null"]
MODELS = {"wide_deep": ["model.deep_hidden=[8]"], "dcnv2": ["model.top_mlp=[8]", "model.cross_rank=4"],
          "dlrm": ["model.bottom_mlp=[8,2]", "model.top_mlp=[8]"]}
RAW = ("display_id", "ad_id", "document_id", "platform", "geo_location", "timestamp")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("outbrain") / "raw", TABLES)


def columns(raw, out, name, **options):
    section = {"name": "outbrain", "folder": str(raw), "feature_set": name, "frequency_limit": 2, **options}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(out / name)}, "test")


def raw_rows(displays):
    """The rows of these displays as the log has them: their clicks, their event."""
    events = {event["display_id"]: event for event in TABLES["events"]}
    return [{**{name: events[click["display_id"]][name] for name in RAW if name != "ad_id"}, "ad_id": click["ad_id"]}
            for click in TABLES["clicks_train"] if click["display_id"] in displays]


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uuid", *RAW])
        writer.writerows(["u", *("\\N" if row[name] is None else row[name] for name in RAW)] for row in rows)
    return path


def table_of(rows):
    return pa.table({name: pa.array([row[name] for row in rows], pa.string() if name == "geo_location" else pa.int64())
                     for name in RAW})


@pytest.fixture(scope="module")
def own(raw, tmp_path_factory):
    """A prepared folder of our own set, its columns by mapping, and by model a run whose data is gone."""
    folder = columns(raw, tmp_path_factory.mktemp("own"), "clickwise")
    found, out, runs = {mapping: read(folder, mapping) for mapping in ("train", "test")}, folder.parent / "runs", {}
    for model, settings in MODELS.items():
        runs[model] = train(f"table/{model}", [f"data.path={folder}", *SMALL, *settings], out=out)
        predict(runs[model], out=runs[model] / "of_test.parquet")
    folder.rename(folder.with_name("away"))
    return folder.with_name("away"), found, runs


@pytest.fixture(scope="module")
def test_rows(own):
    """Raw rows of the test displays, in the order of the test mapping."""
    displays = own[1]["test"]["display_id"].tolist()
    return sorted(raw_rows(set(displays)), key=lambda row: (row["display_id"], row["ad_id"]))


def test_raw_displays_get_the_scores_of_the_mapping_in_a_process_without_engine_or_data(own, test_rows, tmp_path):
    rows, dice = list(test_rows), random.Random(3)
    dice.shuffle(rows)  # a display's rows need not stand together
    write_csv(tmp_path / "rows.csv", rows)
    asked = [{"folder": run, "source": "rows.csv", "out": f"{model}.parquet"} for model, run in own[2].items()]
    predict_without_engines(tmp_path, asked)
    place = [test_rows.index(row) for row in rows]
    for model, run in own[2].items():
        prepared = pq.read_table(run / "of_test.parquet")["logit"].to_numpy()
        found = pq.read_table(tmp_path / f"{model}.parquet")
        assert found["logit"].to_numpy().tobytes() == prepared[place].tobytes(), model
        assert found["display_id"].to_pylist() == [str(row["display_id"]) for row in rows]  # as it stands in the file


def test_raw_displays_become_the_columns_of_the_mapping_to_the_bit(own, test_rows):
    encoding = Encoding.load(own[0] / "preparation")
    names = [name for name in encoding.columns if name != "clicked"]
    found = Encoder(encoding, names).columns(table_of(test_rows)).arrays
    one = Encoder(encoding, names, alone=True)
    ones = [one.row(row) for row in test_rows[:30]]
    for name in names:
        column, stored = found[name], own[1]["test"][name]
        if isinstance(column, tuple):
            values, ends = column
            column = [values[first:end].tolist() for first, end in zip(ends[:-1], ends[1:], strict=True)]
            assert column == [list(ids) for ids in stored], name
        else:
            assert column.tobytes() == np.asarray(stored).tobytes(), name
            column = column.tolist()
        if name != "ads_in_display":
            assert [row[name] for row in ones] == column[:30], name
    assert len(set(found["ads_in_display"].tolist())) > 2


def test_a_row_alone_with_its_display_is_refused_unless_it_is_said_to_be(own, test_rows, tmp_path):
    run, rows = own[2]["wide_deep"], test_rows[:1]
    model = clickwise.load(run)
    for ask in (lambda: model.predict_proba(table_of(rows)), lambda: model._encoder.row(rows[0]),
                lambda: predict(run, source=write_csv(tmp_path / "rows.csv", rows))):
        with pytest.raises(DataError, match="alone with their display_id.*\n.*\n.*--alone, in Python alone=True"):
            ask()
    with pytest.raises(DataError, match=f"alone with their display_id, {rows[0]['display_id']} for example"):
        model.predict_proba(table_of([*rows, *test_rows[-3:]]))
    assert predict(run, source=tmp_path / "rows.csv", alone=True)["rows"] == 1
    alone, together = model.predict_proba(table_of(rows), alone=True), model.predict_proba(table_of(test_rows))
    assert alone.shape == (1,) and alone[0] != together[0]


def test_a_display_may_lie_in_two_blocks_of_a_file(own, test_rows, tmp_path, monkeypatch):
    run = own[2]["dcnv2"]
    whole = predict(run, source=write_csv(tmp_path / "rows.csv", test_rows), out=tmp_path / "whole.parquet")
    monkeypatch.setattr(predict_rows, "BLOCK_ROWS", 3)
    parts = predict(run, source=tmp_path / "rows.csv", out=tmp_path / "parts.parquet")
    assert whole["rows"] == parts["rows"] == len(test_rows)
    assert pq.read_table(tmp_path / "whole.parquet").equals(pq.read_table(tmp_path / "parts.parquet"))


def test_ads_and_documents_that_were_never_seen(own):
    """Their ids are those of rare values (1), what is looked up of them is missing (0), their rates are the mean's."""
    encoding, found = Encoding.load(own[0] / "preparation"), own[1]["train"]
    row = {"display_id": 10**6, "ad_id": 10**6, "document_id": 10**6, "platform": None, "geo_location": "ZZ>ZZ>1",
           "timestamp": 0}
    encoded = Encoder(encoding, alone=True).row({**row, "clicked": 1})
    names = "ad_id", "document_id", "document_id_promo", "source_id", "campaign_id", "platform", "geo_location_country"
    assert [encoded[name] for name in names] == [1, 1, 0, 0, 0, 0, 1]
    assert encoded["topics"] == encoded["entities_promo"] == []
    clicked = sum(found["clicked"].tolist()) / len(found["clicked"])
    scale = json.loads((own[0] / "preparation" / "scales.json").read_text())["ad_id_click_rate"]
    expected = (math.log(clicked / (1 - clicked)) - scale["shift"]) / scale["width"]
    assert encoded["ad_id_click_rate"] == pytest.approx(expected, abs=1e-5)


def test_predict_refuses_new_rows_for_a_published_set_in_one_message(raw, tmp_path):
    run = train("table/wide_deep", [f"data.path={columns(raw, tmp_path, 'v1_spark')}", *SMALL, *MODELS["wide_deep"]],
                out=tmp_path / "runs")
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
    with pytest.raises(DataError, match="not for new rows: dataset.feature_set=v1_spark"):
        prepare_with(run, [rows], tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert predict(run)["rows"] > 0  # the rows that were prepared


def test_a_reason_that_is_no_text_is_refused(tmp_path):
    Encoding({}, {}, not_for_new_rows="so it is").save(tmp_path)
    assert Encoding.load(tmp_path).not_for_new_rows == "so it is"
    content = json.loads((tmp_path / "encoding.json").read_text())
    (tmp_path / "encoding.json").write_text(json.dumps(content | {"not_for_new_rows": 1}))
    with pytest.raises(DataError, match="cannot be understood"):
        Encoding.load(tmp_path)


# ---- further rows as columns


def prepare_with(given, files, out, **options):
    section = {"name": "outbrain", "folder": "nowhere", "input": [str(file) for file in files], **options}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(out)}, "test", given=given)


def test_further_displays_become_the_columns_of_the_test(own, test_rows, tmp_path, capsys, monkeypatch):
    """Of a folder or a run, in several files: a display may lie in two of them, and in two blocks."""
    clicked = {(click["display_id"], click["ad_id"]): click["clicked"] for click in TABLES["clicks_train"]}
    rows = table_of(test_rows).append_column("clicked", pa.array(
        [clicked[row["display_id"], row["ad_id"]] for row in test_rows]))
    files = [tmp_path / "a.parquet", tmp_path / "b.csv"]
    pq.write_table(rows.slice(0, 31), files[0])
    pa.csv.write_csv(rows.slice(31), files[1])
    monkeypatch.setattr(further_rows, "BLOCK_ROWS", 7)
    of_folder = prepare_with(own[0], files, tmp_path / "of_folder")
    of_run = prepare_with(own[2]["dcnv2"], files, tmp_path / "of_run")
    assert "alone" not in capsys.readouterr().err
    for file in (own[0] / "test").iterdir():
        for made in (of_folder, of_run):
            assert (made / "input" / file.name).read_bytes() == file.read_bytes(), file.name
    predict(own[2]["dcnv2"], source=Path("input"), overrides=[f"data.path={of_run}"], out=tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet")["logit"].equals(
        pq.read_table(own[2]["dcnv2"] / "of_test.parquet")["logit"])
    pq.write_table(rows.slice(0, 1), files[0])
    prepare_with(own[0], files[:1], tmp_path / "alone")
    assert "rows that are alone with their display_id: 1" in capsys.readouterr().err
