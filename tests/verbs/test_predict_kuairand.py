"""KuaiRand's runs take raw rows of its log: states that stand still are looked up, others go on with a log."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fresh_process import predict_without_engines
from kuairand_prepared import BEGINS, EVENTS, LOG, RAW, TEST, TEST_FROM, TO_REPLAY, prepared, table_of, write_raw
from kuairand_rows import key, write_table

import clickwise as cw
from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import read_columns
from clickwise.data.loader import Loader
from clickwise.encoding import Encoder, Encoding
from clickwise.encoding.replay import Replay
from clickwise.errors import DataError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import run as prepare
from clickwise.prepare import summary

SMALL = ["train.epochs=1", "train.batch_size=32", "model.embedding_dim=4", "baselines=[]", "data.validation=null",
         "schedule={}"]
ALONE = ["train.evaluation_batch_size=1"]  # a row has the same score to the bit, whatever other rows there are
FROZEN = {"dlrm": ["model.bottom_mlp=[8,4]", "model.top_mlp=[8]"], "dcnv2": ["model.top_mlp=[8]", "model.cross_rank=4"],
          "wide_deep": ["model.deep_hidden=[8]"]}
HISTORY = {"din": ["model.unit_mlp=[4]", "model.top_mlp=[8]"], "dien": ["model.gru_size=4", "model.top_mlp=[8]"],
           "sim": ["model.gru_size=4", "model.top_mlp=[8]", "model.short_length=3"]}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("kuairand_raw"))


@pytest.fixture(scope="module")
def frozen(raw, tmp_path_factory):
    return prepared(raw, "frozen", tmp_path_factory.mktemp("columns"))


@pytest.fixture(scope="module")
def days(raw, tmp_path_factory):
    return prepared(raw, "days", tmp_path_factory.mktemp("columns"))


@pytest.fixture(scope="module")
def history(raw, tmp_path_factory):
    return prepared(raw, "history", tmp_path_factory.mktemp("columns"))


@pytest.fixture(scope="module")
def runs(frozen, history, tmp_path_factory):
    """Model → its run; the columns are gone when the last of them is trained."""
    out = tmp_path_factory.mktemp("runs")
    from clickwise.verbs.predict import predict
    from clickwise.verbs.train import train

    made = {name: train(f"kuairand/{name}", [f"data.path={data}", *SMALL, *settings], out=out)
            for data, models in ((frozen, FROZEN), (history, HISTORY)) for name, settings in models.items()}
    for run in made.values():
        predict(run, out=run / "of_test.parquet", overrides=ALONE)
    away = [folder.rename(folder.with_name(f"{folder.name}_away")) for folder in (frozen, history)]
    yield made
    for folder in away:
        folder.rename(folder.with_name(folder.name.removesuffix("_away")))


def logits(path):
    return pq.read_table(path)["logit"].to_numpy()


def test_every_model_scores_raw_rows_as_the_mapping_without_its_data(runs, tmp_path):
    pq.write_table(table_of(TEST), tmp_path / "rows.parquet")
    write_table(tmp_path / "log.csv", TO_REPLAY)
    given = {name: {"source": "rows.parquet"} if name in FROZEN else {"replay": "log.csv"} for name in runs}
    asked = [{"folder": runs[name], "out": f"{name}.parquet", **given[name]} for name in runs]
    predict_without_engines(tmp_path, asked, ALONE)
    row_of = {key(row): index for index, row in reversed([*enumerate(TO_REPLAY)])}
    for name, run in runs.items():
        found = logits(tmp_path / f"{name}.parquet")
        if name in HISTORY:
            assert len(found) == len(TO_REPLAY)
            found = found[[row_of[key(row)] for row in TEST]]
        np.testing.assert_array_equal(found, logits(run / "of_test.parquet"), err_msg=name)


@pytest.mark.parametrize("name", ["frozen", "days", "history"])
def test_columns_to_the_bit(days, runs, request, name):
    out = request.getfixturevalue(name)
    out = out if name == "days" else out.with_name(f"{out.name}_away")
    spec, encoding = FeatureSpec.load(out), Encoding.load(out / "preparation")
    columns = read_columns(spec, "test")
    names = [name for name in encoding.columns if name in columns.arrays or name in spec.channels["numerical"]]
    if name == "frozen":
        encoder = Encoder(encoding, names)
        rows = np.arange(len(TEST))
        given = table_of(TEST, (*RAW, "is_click"))
        found = encoder.columns(given).arrays
        ones = [encoder.row(row) for row in given.to_pylist()]
    else:
        replay = Replay(encoding, names)
        row_of = {key(row): index for index, row in reversed([*enumerate(TO_REPLAY)])}
        rows, ones = np.array([row_of[key(row)] for row in TEST]), None
        found = replay.rows(table_of(TO_REPLAY, (*RAW, "is_click"))).arrays
        assert replay.repeats == len(TO_REPLAY) - len(row_of)
    clicked = {}
    for row in LOG:
        clicked[key(row)] = max(clicked.get(key(row), 0), row["is_click"])
    assert columns.arrays["is_click"].tolist() == [bool(clicked[key(row)]) for row in TEST]
    for feature in names:
        written = columns.arrays[feature] if feature in columns.arrays else \
            columns.numerical[:, spec.channels["numerical"].index(feature)]
        if isinstance(found[feature], tuple):
            values, offsets = found[feature]
            lists = [values[offsets[row]:offsets[row + 1]].tolist() for row in rows]
            assert lists == [list(written[row]) for row in range(len(TEST))], feature
            assert ones is None or [one[feature] for one in ones] == lists
        elif feature != "is_click" or name == "frozen":
            assert feature == "is_click" or found[feature][rows].tobytes() == written.tobytes(), feature
            assert ones is None or [one[feature] for one in ones] == found[feature].tolist(), feature


def test_rows_may_carry_what_goes_on(days):
    """Seconds and counts as they are, before logarithms and scales."""
    spec, names = FeatureSpec.load(days), ["seconds_since_last", "earlier_today", "duration", "follow_user_num"]
    encoder = Encoder(Encoding.load(days / "preparation"), names)
    earlier = [[other for other in EVENTS if other["user_id"] == row["user_id"] and other["time_ms"] < row["time_ms"]]
               for row in TEST]
    seconds = [(row["time_ms"] - max(other["time_ms"] for other in before)) / 1000 if before else None
               for row, before in zip(TEST, earlier, strict=True)]
    today = [sum(other["date"] == row["date"] for other in before) for row, before in zip(TEST, earlier, strict=True)]
    rows = table_of(TEST)
    with pytest.raises(DataError, match="no seconds_since_last, earlier_today"):
        encoder.columns(rows)
    with pytest.raises(DataError, match="no seconds_since_last, earlier_today.*\n.*\n.*--replay"):
        encoder.row(rows.slice(0, 1).to_pylist()[0])
    rows = rows.append_column("seconds_since_last", pa.array(seconds)).append_column("earlier_today", pa.array(today))
    found, written = encoder.columns(rows).arrays, read_columns(spec, "test").numerical
    for name in names:
        assert found[name].tobytes() == written[:, spec.channels["numerical"].index(name)].tobytes(), name
    assert encoder.row(rows.slice(3, 1).to_pylist()[0])["earlier_today"] == found["earlier_today"][3]


def test_examples_are_rows_or_a_log_with_the_scores_of_the_run(runs, clickwise):
    for name, option, rows in (("dlrm", "--input", TEST), ("din", "--replay", {key(row) for row in TO_REPLAY})):
        examples = pq.read_table(runs[name] / "examples.parquet")
        assert len(examples) == len(rows)
        result = clickwise("predict", runs[name], option, runs[name] / "examples.parquet", "--out", "again.parquet")
        assert result.code == 0, result.err
        assert pq.read_table("again.parquet")["logit"].to_pylist() == examples["logit"].to_pylist()


def test_from_python(runs):
    frame = table_of(TEST).to_pandas()
    model, of_test = cw.load(runs["dcnv2"]), pq.read_table(runs["dcnv2"] / "of_test.parquet")
    np.testing.assert_allclose(model.predict_logit(frame), of_test["logit"].to_numpy(), atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(frame.iloc[:3]), of_test["probability"].to_numpy()[:3], atol=1e-6)
    model, new = cw.load(runs["sim"]), table_of(TO_REPLAY[-1:])
    with pytest.raises(DataError, match="video_history.*outcome"):
        model.predict_proba(new)
    columns = (*RAW, "is_click")
    middle = next(index for index, row in enumerate(TO_REPLAY) if row["time_ms"] > 3_500_000_000)
    first, second = TO_REPLAY[:middle], TO_REPLAY[middle:]
    parts = [model.replay(table_of(first, columns)), model.predict_proba(table_of(second[:1])),
             model.replay(table_of(second, columns))]
    whole = cw.load(runs["sim"]).replay(table_of(TO_REPLAY, columns))
    np.testing.assert_allclose(np.concatenate([parts[0], parts[2]]), whole, atol=1e-6)
    np.testing.assert_allclose(parts[1], whole[middle:middle + 1], atol=1e-6)


def test_rows_after_a_log(runs, clickwise, tmp_path):
    """A log brings the states up to date, and then the rows of another file are scored as things stand."""
    last = max(row["time_ms"] for row in TO_REPLAY)
    write_table(tmp_path / "log.csv", [row for row in TO_REPLAY if row["time_ms"] < last])
    write_table(tmp_path / "all.csv", TO_REPLAY)
    new = [row for row in EVENTS if row["time_ms"] == last]
    write_table(tmp_path / "new.csv", [{name: row[name] for name in RAW} for row in new])
    result = clickwise("predict", runs["dien"], *ALONE, "--replay", "log.csv", "--input", "new.csv", "--out",
                       "new.parquet")
    assert result.code == 0 and "repeat another one" in result.err, result.err
    assert clickwise("predict", runs["dien"], *ALONE, "--replay", "all.csv", "--out", "all.parquet").code == 0
    scored = dict(zip(map(key, TO_REPLAY), logits("all.parquet").tolist(), strict=True))
    assert logits("new.parquet").tolist() == [scored[key(row)] for row in new]


def test_what_cannot_be(runs, clickwise, tmp_path):
    write_table(tmp_path / "log.csv", TO_REPLAY)
    write_table(tmp_path / "mixed.csv", [*TO_REPLAY[9:], *TO_REPLAY[:9]])
    write_table(tmp_path / "bare.csv", [{name: row[name] for name in RAW} for row in TO_REPLAY])
    write_table(tmp_path / "some.csv", [row | {"is_click": ""} if index == 7 else row
                                        for index, row in enumerate(TO_REPLAY)])
    for run, words, code, said in (
            ("din", ("--input", "bare.csv"), 1, ("user_impressions", "seconds_since", "video_history", "--replay")),
            ("din", ("--replay", "mixed.csv"), 1, ("mixed.csv, row", "order of time_ms")),
            ("din", ("--replay", "bare.csv"), 1, ("no column 'is_click'",)),
            ("din", ("--replay", "some.csv"), 1, ("row 7", "a label in every row")),
            ("din", ("--replay", "gone.csv"), 2, ("--replay gone.csv", "no such file")),
            ("din", ("--replay", "log.csv", "--encoded"), 2, ("--encoded",)),
            ("dlrm", ("--replay", "log.csv"), 1, ("no state that goes on", "--input"))):
        result = clickwise("predict", runs[run], *words, "--out", "p.parquet")
        assert result.code == code and "Traceback" not in result.err, result.err
        assert all(word in result.err for word in said), result.err
        assert not list(tmp_path.glob("*p.parquet*"))


def test_repeats_are_told(runs, clickwise, tmp_path):
    write_table(tmp_path / "rows.csv", [{name: row[name] for name in RAW} for row in TO_REPLAY])
    result = clickwise("predict", runs["dlrm"], "--input", "rows.csv", "--out", "p.parquet")
    repeats = len(TO_REPLAY) - len({key(row) for row in TO_REPLAY})
    assert result.code == 0 and f"{repeats} rows repeat another one" in result.err
    assert len(pq.read_table("p.parquet")) == len(TO_REPLAY)


# ---- further rows as columns


def prepare_with(given, files, out):
    section = {"name": "kuairand", "folder": "nowhere", "input": [str(file) for file in files]}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(out)}, "test", given=given)


@pytest.mark.parametrize("name", ["frozen", "days", "history"])
def test_a_further_log_becomes_the_columns_of_the_test_mapping(days, runs, request, name, tmp_path, capsys):
    """In any order, in several files, with repeats; its histories hold what those of the test mapping hold."""
    out = request.getfixturevalue(name)
    out = out if name == "days" else out.with_name(f"{out.name}_away")
    log = TO_REPLAY if name != "frozen" else [row for row in TO_REPLAY if row["date"] >= TEST_FROM]
    write_table(tmp_path / "b.csv", log[40:])
    pq.write_table(table_of([*reversed(log[:40])], (*RAW, "is_click")), tmp_path / "a.parquet")
    more = prepare_with(out, [tmp_path / "b.csv", tmp_path / "a.parquet"], tmp_path / "more")
    order = list(dict.fromkeys(key(row) for row in [*log[40:], *reversed(log[:40])]))
    assert summary(more)["repeats"] == {"input": len(log) - len(order)}
    assert summary(more)["rows"] == {"input": len(order)}
    assert f"{len(log) - len(order)} rows repeat another one" in capsys.readouterr().err
    place = [order.index(key(row)) for row in TEST]
    spec, made = FeatureSpec.load(out), FeatureSpec.load(more)
    found, expected = read_columns(made, "input"), read_columns(spec, "test")
    np.testing.assert_array_equal(found.numerical[place], expected.numerical)
    assert {"user_day", "item_id", "is_click", "tags"} <= found.arrays.keys() <= expected.arrays.keys()
    for feature, column in found.arrays.items():
        rows = [[*column[row]] if isinstance(column, RaggedArray) else column[row] for row in place]
        assert rows == [[*value] if isinstance(column, RaggedArray) else value
                        for value in expected.arrays[feature]], feature
    if name == "history":
        batches = [next(iter(Loader(columns, of, batch_size=columns.rows, shuffle="none", drop_last=False).epoch(0)))
                   for columns, of in ((found, made), (expected, spec))]
        assert made.channels["history"] == spec.channels["history"] and "negative_history" not in made.channels
        for ours, theirs in zip(batches[0].history, batches[1].history, strict=True):
            assert (ours[place] == theirs).all() and ours.any()


def test_runs_read_a_further_log(runs, tmp_path, clickwise):
    """With the metrics of the test, and to train on."""
    write_table(tmp_path / "log.csv", [row for row in TO_REPLAY if row["date"] >= TEST_FROM])
    for name in ("dcnv2", "sim"):
        assert clickwise("prepare", "kuairand/prepare", "--with", runs[name], "dataset.input=[log.csv]",
                         f"out={name}").code == 0
        result = clickwise("evaluate", runs[name], "--mapping", "input", f"data.path={name}", "--json")
        assert result.code == 0, result.err
    found = json.loads(result.out)["metrics"]
    assert found["auc"] > 0
    result = clickwise("train", "kuairand/sim", *SMALL, *HISTORY["sim"], f"start_from={runs['sim']}", "data.path=sim",
                       "data.train=input", "data.test=input")
    assert result.code == 0, result.err


def test_what_cannot_be_further_rows(days, runs, clickwise, tmp_path):
    write_table(tmp_path / "bare.csv", [{name: row[name] for name in RAW} for row in TO_REPLAY])
    write_table(tmp_path / "whole.csv", LOG)
    write_table(tmp_path / "timeless.csv", [{name: row[name] for name in (*RAW, "is_click") if name != "time_ms"}
                                            for row in TO_REPLAY])
    write_table(tmp_path / "carried.csv", [
        {name: row[name] for name in RAW} | {"seconds_since_last": 5, "earlier_today": 2}
        | dict.fromkeys(Encoder(Encoding.load(days / "preparation")).carried, 3) for row in TO_REPLAY[:9]])
    for given, file, said in (
            (runs["sim"], "bare.csv", ("neither the label is_click nor ", "video_history", "add the label")),
            (days, "bare.csv", ("user_impressions", "or the columns named")),
            (days, "whole.csv", ("know the outcome already", f"time_ms {BEGINS}", "leave the earlier")),
            (days, "timeless.csv", ("no column 'time_ms'",))):
        result = clickwise("prepare", "kuairand/prepare", "--with", given, f"dataset.input=[{file}]", "out=x")
        assert result.code == 1 and "Traceback" not in result.err, result.err
        assert all(word in result.err for word in said), result.err
        assert not (tmp_path / "x").exists()
    result = clickwise("prepare", "kuairand/prepare", "--with", days, "dataset.input=[carried.csv]", "out=y")
    assert result.code == 0, result.err
