from __future__ import annotations

import datetime
import json

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kuairand_rows import (
    attributes,
    ids,
    in_order,
    random_log,
    raw_category,
    raw_numbers,
    raw_tags,
    write_table,
)
from prepared_columns import read

from clickwise.encoding.operations import Weekday
from clickwise.errors import PrepareError, RecipeError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import earlier, run
from clickwise.prepare.duckdb_engine import DuckDBEngine
from clickwise.prepare.kuairand.config import CATEGORICAL, NUMERICAL
from clickwise.recipe import load

LOG = random_log(160)
FEW = {"numerical": ["duration", "video_click_rate"], "categorical": ["tab", "music_type", "tags"]}
ALL = {"numerical": list(NUMERICAL),
       "categorical": ["user_id", "video_id", "tab", "hour", "author_id", "onehot_feat3", "tags"]}
TRAIN, VALIDATION, TEST = (0, 20220430), (20220430, 20220501), (20220501, 99999999)


@pytest.fixture
def prepare(tmp_path):
    """`prepare(rows, ...)` writes the raw files (unless `folder` has them) and returns the prepared folder."""
    def prepare(rows=None, *, name="out", folder=None, **options):
        if folder is None:
            folder = tmp_path / f"{name}_raw"
            users, videos = attributes()
            write_table(folder / "log_standard_4_22_to_5_08_tiny.csv", rows)
            write_table(folder / "user_features_tiny.csv", users)
            write_table(folder / "video_features_basic_tiny.csv", videos)
        section = {"name": "kuairand", "folder": str(folder), "frequency_limit": 1, "shuffle": False, **FEW, **options}
        return run({"dataset": section, "engine": {"threads": 1}, "out": str(tmp_path / name)}, "test.yaml")

    return prepare


def every_file(out, mapping):
    return {file.name: file.read_bytes() for file in sorted((out / mapping).iterdir())}


def raises(prepare, *words, error=PrepareError, **options):
    with pytest.raises(error) as caught:
        prepare(**options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("count_until", ["earlier_days", "training", "earlier_moments"])
def test_every_number_as_worked_out_row_by_row(prepare, count_until):
    out = prepare(LOG, numerical=list(NUMERICAL), count_until=count_until, rate_weight=4)
    train = in_order(LOG, *TRAIN)
    prior = np.mean([row["is_click"] for row in train])
    last_day = 20220430 if count_until == "training" else 99999999
    when = "time_ms" if count_until == "earlier_moments" else "date"
    fitted = [raw_numbers(LOG, row, prior, 4, last_day, when) for row in train]
    for mapping, days in {"train": TRAIN, "validation": VALIDATION, "test": TEST}.items():
        found, rows = read(out, mapping), in_order(LOG, *days)
        assert found["is_click"].tolist() == [bool(row["is_click"]) for row in rows]
        assert found["item_id"].tolist() == [row["video_id"] for row in rows]
        assert found["user_day"].tolist() == [row["user_id"] * 10**8 + row["date"] for row in rows]
        expected = [raw_numbers(LOG, row, prior, 4, last_day, when) for row in rows]
        for name in NUMERICAL:
            known = [row[name] for row in fitted if row[name] is not None]
            mean, std = np.mean(known), np.std(known) or 1.0
            values = [0.0 if row[name] is None else (row[name] - mean) / std for row in expected]
            np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=2e-3, err_msg=f"{mapping} {name}")


@pytest.mark.parametrize("limit", [1, 20])
def test_ids_of_the_training_values_only(prepare, limit):
    names = [name for name in CATEGORICAL if not name.endswith("_range")]
    names = [name for name in names if name not in ("day_of_week", "is_lowactive_period", "is_live_streamer", "tags")]
    log = LOG + [{**LOG[0], "date": 20220502, "time_ms": 5 * 10**9, "tab": 13}]
    out = prepare(log, categorical=[*names, "tags"], frequency_limit=limit)
    train = in_order(log, *TRAIN)
    spec = FeatureSpec.load(out)
    assert [feature.name for feature in spec.channel("categorical")] == [*names, "tags"]
    vocabularies = {name: ids([raw_category(row, name) for row in train], limit) for name in names}
    tags = ids([tag for row in train for tag in raw_tags(row)], limit)
    for mapping, days in {"train": TRAIN, "validation": VALIDATION, "test": TEST}.items():
        found, rows = read(out, mapping), in_order(log, *days)
        for name, vocabulary in vocabularies.items():
            expected = [vocabulary.get(raw_category(row, name), 0) for row in rows]
            assert found[name].tolist() == expected, (mapping, name)
            assert spec.features[name].cardinality == len(vocabulary) + 1
        assert found["tags"] == [[tags[tag] for tag in raw_tags(row) if tag in tags] for row in rows]
    assert read(out, "test")["tab"][-1] == 0  # never seen in training
    assert spec.features["tags"].max_hotness == 2 and spec.features["tags"].cardinality == len(tags) + 1
    kept = pq.read_table(out / "preparation/vocabularies/tab.parquet").to_pydict()
    assert dict(zip(kept["value"], kept["id"], strict=True)) == vocabularies["tab"]


def test_no_click_is_seen_before_its_day_is_over(prepare):
    """Other clicks from a day on leave every input until that day as it was, and later ones only daily counting."""
    flipped = [{**row, "is_click": 1 - row["is_click"]} if row["date"] >= 20220501 else row for row in LOG]
    for count_until in ("earlier_days", "training"):
        one, other = (prepare(log, name=f"{name}_{count_until}", count_until=count_until, **ALL)
                      for name, log in (("one", LOG), ("other", flipped)))
        for mapping in ("train", "validation"):
            assert every_file(one, mapping) == every_file(other, mapping)
        before, after = read(one, "test"), read(other, "test")
        assert (before.pop("is_click") != after.pop("is_click")).all()
        first_day = before["user_day"] % 10**8 == 20220501
        assert 0 < first_day.sum() < len(first_day)
        for name in before:
            same = np.array([a == b for a, b in zip(before[name], after[name], strict=True)])
            assert same[first_day].all(), name
            if count_until == "training" or not name.endswith("_click_rate"):
                assert same.all(), name
        changed = before["video_click_rate"] != after["video_click_rate"]
        assert changed.any() == (count_until == "earlier_days")


def test_outcomes_are_never_inputs(prepare):
    outcomes = {"is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "play_time_ms",
                "profile_stay_time", "comment_stay_time", "is_profile_enter", "is_click"}
    assert not outcomes & {*NUMERICAL, *CATEGORICAL}
    other = [{**row, "is_like": 1 - row["is_like"], "play_time_ms": 77} for row in LOG]
    one, two = prepare(LOG, name="one", **ALL), prepare(other, name="two", **ALL)
    assert every_file(one, "train") == every_file(two, "train") and every_file(one, "test") == every_file(two, "test")


def test_neither_the_kind_of_file_nor_order_nor_repeats_matter(prepare, tmp_path):
    """Two .csv.gz logs, shuffled, with repeats (one logged after midnight) and a log of random exposure beside them."""
    one = prepare(LOG, name="one", **ALL)
    folder, (users, videos) = tmp_path / "pure", attributes()
    later = {**LOG[0], "date": LOG[0]["date"] + 1, "hourmin": 2300, "is_click": 0}
    first, second = LOG[::2][::-1], LOG[1::2] + LOG[5:9] + [later]
    write_table(folder / "log_standard_4_08_to_4_21_pure.csv.gz", first)
    write_table(folder / "log_standard_4_22_to_5_08_pure.csv.gz", second)
    write_table(folder / "log_random_4_22_to_5_08_pure.csv", [{**LOG[0], "is_rand": 1, "time_ms": 1}])
    write_table(folder / "user_features_pure.csv", users[::-1])
    columns = {name: [None if row[name] == "" else row[name] for row in videos] for name in videos[0]}
    pq.write_table(pa.table(columns), folder / "video_features_basic_pure.parquet")
    two = prepare(folder=folder, name="two", **ALL)
    for mapping in ("train", "validation", "test"):
        assert every_file(one, mapping) == every_file(two, mapping)
    summary = json.loads((two / "preparation/summary.json").read_text())
    assert summary["rows_read"] == len(LOG) + 5 and summary["repeats_dropped"] == 5
    assert summary["rows_without_attributes"] == {
        "users": sum(row["user_id"] == 8 for row in LOG), "videos": sum(row["video_id"] == 111 for row in LOG)}


def test_which_days_go_where(prepare):
    sizes = {name: len(in_order(LOG, *days)) for name, days in
             (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))}
    out = prepare(LOG, name="a", train_on_validation=True)
    assert len(read(out, "train")["is_click"]) == sizes["train"] + sizes["validation"]
    assert len(read(out, "validation")["is_click"]) == sizes["validation"]
    out = prepare(LOG, name="b", validation_from=None)
    assert list(FeatureSpec.load(out).mappings) == ["train", "test"]
    assert len(read(out, "train")["is_click"]) == sizes["train"] + sizes["validation"]
    out = prepare(LOG, name="c", train_from=20220429)
    assert len(read(out, "train")["is_click"]) == len(in_order(LOG, 20220429, 20220430))


def test_shuffle_permutes_whole_training_rows(prepare):
    features = {"numerical": ["duration", "earlier_today"]}
    one, two = prepare(LOG, name="one", **features), prepare(LOG, name="two", shuffle=True, **features)
    rows = [list(zip(*(read(out, "train")[name] for name in ("user_day", "tab", "is_click", "duration")),
                     strict=True)) for out in (one, two)]
    assert rows[0] != rows[1] and sorted(rows[0]) == sorted(rows[1])
    assert every_file(one, "test") == every_file(two, "test")


def test_only_numbers_or_only_ids(prepare):
    assert "numerical.bin" not in every_file(prepare(LOG, name="a", numerical=[]), "train")
    out = prepare(LOG, name="b", categorical=[])
    assert set(every_file(out, "train")) == {"numerical.bin", "label.bin", "user_day.bin", "item_id.bin"}


@pytest.fixture(scope="module")
def engine():
    engine = DuckDBEngine(memory_limit="300MB", threads=1)
    yield engine
    engine.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=st.lists(st.tuples(st.none() | st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.integers(0, 1)),
                    min_size=1, max_size=25))
def test_what_was_known_before_by_hand(engine, log):
    rows = [dict(zip(("key", "day", "time", "label"), row, strict=True)) for row in log]
    schema = dict.fromkeys(("key", "day", "time", "label"), "int64")
    table = engine.materialise(ibis.memtable(rows, schema=schema), "log")
    daily = earlier.counts(table, ["key"], "day", "label")
    found = engine.rows(earlier.earlier_counts(daily, ["key"], "day", 3))
    assert len(found) == len({(row["key"], row["day"]) for row in rows if row["key"] is not None})
    for each in found:
        before = [row for row in rows if row["key"] == each["key"] and row["day"] < each["day"] and row["day"] <= 3]
        assert (each["impressions"], each["clicks"]) == (len(before), sum(row["label"] for row in before))
    totals = {each["key"]: (each["impressions"], each["clicks"])
              for each in engine.rows(earlier.total_counts(daily, ["key"], "day"))}
    known = [row for row in rows if row["key"] is not None]
    assert totals == {key: (sum(row["key"] == key for row in known),
                            sum(row["label"] for row in known if row["key"] == key)) for key in
                      {row["key"] for row in known}}


def test_day_of_week_is_the_calendar_s(engine):
    days = [datetime.date(1999, 12, 28) + datetime.timedelta(days=37 * i) for i in range(400)]
    rows = [{"date": day.year * 10000 + day.month * 100 + day.day, "expected": day.weekday()} for day in days]
    table = engine.materialise(ibis.memtable(rows), "days")
    assert engine.row(table.aggregate(n=table.count(where=Weekday().bulk(table.date) == table.expected))) == {"n": 400}


# ---- what a person can get wrong


def test_missing_files_and_columns(prepare, tmp_path):
    raises(prepare, "dataset.folder", "no such folder", folder=tmp_path / "nowhere")
    prepare(LOG)
    raw = tmp_path / "out_raw"
    raises(prepare, "dataset.log", "no file", folder=raw, log=["log_other_*"], name="a")
    raises(prepare, "dataset.log", "no such file", "log_standard_4_22_to_5_08_tiny.csv", folder=raw,
           log=["log_standard_4_22_to_5_08_tini.csv"], name="a")
    (raw / "user_features_tiny.csv").write_text("")
    raises(prepare, "user_features_tiny.csv", "empty file", folder=raw, name="a")
    (raw / "user_features_tiny.csv").write_text("user_id,follow_user_nun\n1,2\n")
    raises(prepare, "user_features_tiny.csv", "follow_user_num", "did you mean 'follow_user_nun'?", folder=raw,
           numerical=["follow_user_num"], categorical=[], name="a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("column, value, words", [
    ("is_click", 2, ["2 in is_click", "neither 0 nor 1"]),
    ("time_ms", "noon", ["'noon' in time_ms", "no int64"]),
    ("user_id", "", ["no value of user_id"]),
    ("tab", "1,5", ["12 fields, where the header has 11"]),
])
def test_bad_rows_stop_with_their_line_or_are_skipped(prepare, tmp_path, column, value, words):
    bad = [*LOG[:30], {**LOG[30], column: value}, *LOG[31:]]
    folder, (users, videos) = tmp_path / "raw", attributes()
    file = write_table(folder / "log_standard_a.csv", bad)
    file.write_text(file.read_text().replace('"1,5"', "1,5"))
    write_table(folder / "user_features_a.csv", users)
    write_table(folder / "video_features_basic_a.csv", videos)
    raises(prepare, "log_standard_a.csv, line 32", *words, "max_bad_rows", folder=folder)
    out = prepare(folder=folder, max_bad_rows=1)
    assert json.loads((out / "preparation/summary.json").read_text())["bad_rows_skipped"] == {str(file): 1}
    assert every_file(out, "train") == every_file(prepare([*LOG[:30], *LOG[31:]], name="good"), "train")


def test_damaged_and_doubled_tables(prepare, tmp_path):
    prepare(LOG)
    raw, (users, _) = tmp_path / "out_raw", attributes()
    write_table(raw / "user_features_tiny.csv", [*users, users[3]])
    raises(prepare, "user_features_tiny.csv", "user_id 3 in 2 rows", folder=raw, name="a")
    (raw / "user_features_tiny.csv").unlink()
    (raw / "user_features_tiny.parquet").write_bytes(b"nothing")
    raises(prepare, "user_features_tiny.parquet", "no Parquet file", folder=raw, name="a")
    (raw / "user_features_tiny.parquet").unlink()
    (raw / "user_features_tiny.csv.gz").write_bytes(b"nothing")
    raises(prepare, "user_features_tiny.csv.gz", "no column 'user_id'", folder=raw, name="a")


def test_a_parquet_label_that_is_none(prepare, tmp_path):
    prepare(LOG)
    raw = tmp_path / "out_raw"
    (raw / "log_standard_4_22_to_5_08_tiny.csv").unlink()
    rows = [{**LOG[0], "is_click": 7}, *LOG[1:]]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.table(columns), raw / "log_standard_a.parquet")
    raises(prepare, "log_standard_a.parquet", "1 rows whose is_click is neither 0 nor 1", folder=raw, name="a")


def test_settings_that_cannot_be(prepare):
    for options, words in (
        ({"test_from": 20220431}, ["test_from", "a day as yyyymmdd"]),
        ({"validation_from": 20220502}, ["train_from < validation_from < test_from"]),
        ({"numerical": ["play_time_ms"]}, ["play_time_ms", "features out of"]),
        ({"categorical": ["video_idd"]}, ["did you mean 'video_id'?"]),
        ({"categorical": ["tab", "tab"]}, ["every feature once"]),
        ({"numerical": [], "categorical": []}, ["at least one feature"]),
        ({"frequency_limits": {"video_id": 5}}, ["frequency_limits", "video_id"]),
        ({"rate_weight": 0.0}, ["rate_weight"]),
        ({"count_until": "never"}, ["count_until"]),
        ({"folders": "x"}, ["did you mean 'folder'?"]),
    ):
        raises(prepare, *words, error=RecipeError, rows=LOG, **options)
    raises(prepare, "test_from", "no impressions for test", "20220428 to 20220502", rows=LOG, test_from=20220601)


# ---- the sample that is shipped


def test_the_shipped_sample(tmp_path):
    recipe = load("kuairand/prepare")
    out = run({**recipe, "engine": {"threads": 1}, "out": str(tmp_path / "kuairand")}, "kuairand/prepare")
    summary = json.loads((out / "preparation/summary.json").read_text())
    assert summary["rows_read"] == 228_329 and summary["repeats_dropped"] == 5_885
    assert summary["rows"] == {"train": 71_292, "validation": 20_513, "test": 130_639}
    labels = np.concatenate([read(out, mapping)["is_click"] for mapping in ("train", "validation", "test")])
    assert 0.44 < labels.mean() < 0.45
    train, spec = read(out, "train"), FeatureSpec.load(out)
    for feature in spec.channel("numerical"):
        assert abs(train[feature.name].astype(np.float64).mean()) < 0.01
    scales = json.loads((out / "preparation/scales.json").read_text())
    assert set(scales["scales"]) == {feature.name for feature in spec.channel("numerical")}
    assert spec.features["tags"].max_hotness == 3
