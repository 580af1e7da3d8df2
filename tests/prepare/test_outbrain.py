"""Preparation of Outbrain: the split, our own feature set, what does not leak, bad input, interrupted runs."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from outbrain_rows import DAY_MS, HEADERS, IDS, Reference, hash60, ids, random_tables, write_tables
from prepared_columns import read
from sklearn.metrics import roc_auc_score

from clickwise.data.synthetic import synthesize_raw_outbrain
from clickwise.errors import PrepareError, RecipeError
from clickwise.prepare import outbrain, run
from clickwise.prepare.outbrain_clock import COUNTRIES, STATES
from clickwise.recipe import load, parse
from clickwise.spec import FeatureSpec

TABLES = random_tables(60, seed=2)
KEYS = ("ad_id", "document_id_promo", "source_id_promo", "publisher_id_promo", "advertiser_id", "campaign_id")


@pytest.fixture
def prepare(tmp_path):
    """`prepare(tables, ...)` writes the raw files (unless `folder` has them): the spec, and columns by mapping."""
    def prepare(tables=TABLES, *, name="out", folder=None, missing="\\N", feature_set="v1_spark", **options):
        folder = folder or write_tables(tmp_path / f"{name}_raw", tables, missing)
        section = {"name": "outbrain", "folder": str(folder), "feature_set": feature_set, "shuffle": False,
                   "frequency_limit": 2, **options}
        out = run({"dataset": section, "engine": {"threads": 1}, "out": str(tmp_path / name)}, "test.yaml")
        spec = FeatureSpec.load(out)
        return spec, {mapping: read(out, mapping) for mapping in spec.mappings}

    return prepare


def changed(**changes):
    """The tables with rows of some tables replaced by `change(rows)`."""
    tables = copy.deepcopy(TABLES)
    for name, change in changes.items():
        tables[name] = change(tables[name])
    return tables


def raises(prepare, *words, error=PrepareError, tmp_path=None, **options):
    with pytest.raises(error) as slip:
        prepare(**options)
    for word in words:
        assert word in str(slip.value)
    if tmp_path is not None:
        assert not [path for path in tmp_path.iterdir() if not path.name.endswith("_raw")]


# ---- the split


def test_displays_are_split_by_day_and_hash(prepare):
    _, found = prepare(seed=3, test_share=0.5)
    displays = {mapping: set(columns["display_id"]) for mapping, columns in found.items()}
    assert not displays["train"] & displays["test"]
    for event in TABLES["events"]:
        late = event["timestamp"] // DAY_MS >= 11
        test = late or hash60(f"3/{event['display_id']}") < 0.5 * 2**60
        assert event["display_id"] in displays["test" if test else "train"]
    assert len(found["train"]["display_id"]) + len(found["test"]["display_id"]) == len(TABLES["clicks_train"])
    for columns in found.values():
        assert columns["display_id"].tolist() == sorted(columns["display_id"])


def test_share_of_days_0_to_10(prepare):
    tables = random_tables(600, seed=1)
    _, found = prepare(tables)
    early = {event["display_id"] for event in tables["events"] if event["timestamp"] < 11 * DAY_MS}
    share = len(early & set(found["test"]["display_id"])) / len(early)
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(early))


def test_the_order_of_the_raw_files_changes_nothing(prepare):
    _, one = prepare(name="one")
    _, two = prepare(changed(**{name: lambda rows: rows[::-1] for name in ("clicks_train", "events", "promoted_content",
                                                                          "documents_meta")}), name="two")
    for mapping, columns in one.items():
        for name, column in columns.items():
            np.testing.assert_array_equal(np.array(column, object), np.array(two[mapping][name], object), name)


def test_a_ready_made_list_of_test_displays(prepare, tmp_path):
    (tmp_path / "list.csv").write_text("display_id\n4\n7\n7\n999\n")
    _, found = prepare(test_displays=str(tmp_path / "list.csv"))
    assert set(found["test"]["display_id"]) == {4, 7}


# ---- our own features


def test_rates_come_from_the_displays_of_other_folds(prepare):
    spec, found = prepare(feature_set="clickwise", folds=4, rate_weight=5.0)
    scales = json.loads((spec.folder / "preparation" / "scales.json").read_text())
    r = Reference(TABLES, "clickwise")
    fold = {row["display_id"]: hash60(f"0/{row['display_id']}") % 4 for row in r.train}
    prior = sum(row["clicked"] for row in r.train) / len(r.train)
    for key in KEYS:
        rates, views = [], []
        for row in r.rows:
            others = [other for other in r.train if other[key] == row[key] and row[key] is not None
                      and (row["test"] or fold[other["display_id"]] != fold[row["display_id"]])]
            n, clicks = len(others), sum(other["clicked"] for other in others)
            views.append(math.log1p(n))
            rates.append(math.log((clicks + 5 * prior) / (n - clicks + 5 * (1 - prior))))
        for name, values in ((f"{key}_click_rate", rates), (f"{key}_views", views)):
            train = values[:len(r.train)]
            assert scales[name]["shift"] == pytest.approx(np.mean(train), abs=1e-9)
            assert scales[name]["width"] == pytest.approx(np.std(train, ddof=1) or 1, rel=1e-9)
            for mapping, column in r.mappings(values).items():
                np.testing.assert_allclose(unscaled(found[mapping][name], scales[name]), column, atol=1e-5)


def unscaled(column, scale):
    return np.asarray(column, np.float64) * scale["width"] + scale["shift"]


def test_ids_keep_missing_rare_and_frequent_values_apart(prepare):
    spec, found = prepare(feature_set="clickwise", frequency_limits={"geo_location": 14})
    r = Reference(TABLES, "clickwise")
    names = {"geo_location": ("geo_location", 14), "geo_location_country": ("country", 2), "platform": ("platform", 2),
             "source_id": ("source_id", 2), "publisher_id_promo": ("publisher_id_promo", 2), "ad_id": ("ad_id", 2),
             "document_id": ("document_id", 2)}
    for name, (column, limit) in names.items():
        known = ids([row[column] for row in r.train], limit)
        expected = [0 if row[column] is None else known.get(row[column], 0) + 1 for row in r.rows]
        assert spec.features[name].cardinality == len(known) + 2
        for mapping, values in r.mappings(expected).items():
            assert found[mapping][name].tolist() == values, name
    assert {0, 1, 2} <= set(found["train"]["geo_location"])


def test_lists_hold_the_most_certain_known_aspects(prepare):
    spec, found = prepare(feature_set="clickwise", frequency_limits={"entities_promo": 8})
    r = Reference(TABLES, "clickwise")
    for kind in IDS:
        for suffix in ("", "_promo"):
            aspects = r.aspects(kind)
            order = ids([row[IDS[kind]] for row in r.tables[f"documents_{kind}"]])
            seen = [order[id_] for row in r.train for id_ in aspects.get(row[f"document_id{suffix}"], {})]
            known = ids(seen, 8 if kind + suffix == "entities_promo" else 2)
            lists = []
            for row in r.rows:
                mine = {order[id_]: c for id_, c in aspects.get(row[f"document_id{suffix}"], {}).items()}
                best = sorted((id_ for id_ in mine if id_ in known), key=lambda id_, mine=mine: (-mine[id_], id_))
                lists.append([known[id_] for id_ in best[:3]])
            assert spec.features[kind + suffix].cardinality == len(known) + 1
            for mapping, values in r.mappings(lists).items():
                assert found[mapping][kind + suffix] == values


@pytest.mark.parametrize("name", ["clickwise", "multihot", "profiles"])
def test_labels_of_the_test_enter_no_feature(prepare, name):
    _, before = prepare(feature_set=name, name="a")
    test = set(before["test"]["display_id"])

    def turned(rows):
        return [{**row, "clicked": 1 - row["clicked"]} if row["display_id"] in test else row for row in rows]

    _, after = prepare(changed(clicks_train=turned), feature_set=name, name="b")
    for mapping, columns in before.items():
        for feature, column in columns.items():
            if (mapping, feature) != ("test", "clicked"):
                np.testing.assert_array_equal(np.array(column, object), np.array(after[mapping][feature], object))


def test_no_label_of_its_own_display_enters_a_row(prepare):
    """The click of a training display moves to another of its ads: nothing changes in the rows of its fold."""
    spec, before = prepare(feature_set="clickwise", folds=3, name="a")
    display = before["train"]["display_id"][0]

    def moved(rows):
        mine = [row for row in rows if row["display_id"] == display]
        ad = next(row["ad_id"] for row in mine if not row["clicked"])
        return [{**row, "clicked": int(row["ad_id"] == ad)} if row["display_id"] == display else row for row in rows]

    other, after = prepare(changed(clicks_train=moved), feature_set="clickwise", folds=3, name="b")
    scales = [json.loads((s.folder / "preparation" / "scales.json").read_text()) for s in (spec, other)]
    fold = [hash60(f"0/{d}") % 3 for d in before["train"]["display_id"]]
    own = np.array(fold) == fold[0]
    assert before["train"]["clicked"].tolist() != after["train"]["clicked"].tolist()
    differences = 0
    for name in spec.channels["numerical"]:
        one, two = (unscaled(x["train"][name], s[name]) for x, s in zip((before, after), scales, strict=True))
        np.testing.assert_allclose(one[own], two[own], atol=1e-5)
        differences += (abs(one[~own] - two[~own]) > 1e-3).sum()
    assert differences > 0


def test_published_rates_know_the_labels_that_they_are_trained_on(tmp_path):
    """On generated logs: our rates rank training rows as well as test rows, the published ones better than they are."""
    figures = synthesize_raw_outbrain(tmp_path / "raw", 6000, threads=1)
    gaps = {}
    for name, feature in (("clickwise", "ad_id_click_rate"), ("v1_spark", "pop_ad_id")):
        out = run({"dataset": {"name": "outbrain", "folder": str(tmp_path / "raw"), "feature_set": name},
                   "engine": {"threads": 1}, "out": str(tmp_path / name)}, "test.yaml")
        found = {mapping: read(out, mapping) for mapping in ("train", "test")}
        assert sum(len(columns["clicked"]) for columns in found.values()) == 6000
        auc = {mapping: roc_auc_score(columns["clicked"], columns[feature]) for mapping, columns in found.items()}
        gaps[name] = auc["train"] - auc["test"]
        assert 0.52 < auc["test"] < figures["best_auc"]
    assert abs(gaps["clickwise"]) < 0.01 and gaps["v1_spark"] > 0.02


def test_similarity_golden(prepare):
    """N = 1000; {a: .9, df 10; b: .1, df 100} and {a: .5; c: .5, df 50}: 0.810643 by ln ln, 0.836956 by ln."""
    aspects = [(1, 1, 0.9), (1, 2, 0.1), (2, 1, 0.5), (2, 3, 0.5)]
    for id_, df in ((1, 8), (2, 99), (3, 49)):
        aspects += [(999 - place, id_, 0.5) for place in range(df)]
    tables = changed(
        documents_meta=lambda rows: [dict(zip(HEADERS["documents_meta"], (d, 1, 1, "2016-06-01 00:00:00"), strict=True))
                                     for d in range(1000)],
        documents_categories=lambda rows: [dict(zip(HEADERS["documents_categories"], row, strict=True))
                                           for row in aspects],
        promoted_content=lambda rows: [{**row, "document_id": 2} for row in rows],
        events=lambda rows: [{**row, "document_id": 1, "platform": 1, "geo_location": "US"} for row in rows])
    for name, feature, expected in (("v1_spark", "doc_event_doc_ad_sim_categories", 0.810643),
                                    ("v1_nvtabular", "document_id_document_id_promo_sim_categories", 0.836956)):
        _, found = prepare(tables, feature_set=name, name=name)
        np.testing.assert_allclose(found["train"][feature], expected, atol=1e-6)


def test_every_place_has_one_offset():
    for codes in (COUNTRIES, *STATES.values()):
        names = [code for text in codes.values() for code in text.split()]
        assert len(names) == len(set(names)) and all(len(name) == 2 for name in names)


# ---- how it is stored


def test_what_is_fitted_is_kept(prepare):
    places = pq.read_table(prepare(name="spark")[0].folder / "preparation" / "event_counts.parquet").to_pylist()
    counts = Reference(TABLES, "v1_spark").event_count("country")
    assert {row["value"]: row["n"] for row in places if row["column"] == "geo_location_country"} == {
        value: n for value, n in counts.items() if value is not None}
    spec, _ = prepare(feature_set="clickwise")
    folder = spec.folder / "preparation"
    assert {file.stem for file in (folder / "rates").iterdir()} == {*KEYS, "mean"}
    assert {file.stem for file in (folder / "aspects").iterdir()} == set(IDS)
    own = {file.stem for file in (folder / "vocabularies").iterdir()}
    assert own == set(spec.channels["categorical"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["displays"]["train"]["no_click"] == 0 and summary["rows_read"]["events"] == 60
    assert spec.channels["display"] == ("display_id",)


def test_empty_fields_are_missing_too(prepare):
    _, one = prepare(name="one")
    _, two = prepare(missing="", name="two")
    for name, column in one["train"].items():
        np.testing.assert_array_equal(column, two["train"][name])


@pytest.mark.parametrize("name", ["clickwise", "profiles"])
def test_threads_and_memory_change_nothing(tmp_path, name):
    folder = write_tables(tmp_path / "raw", random_tables(200, seed=9))
    files = []
    for out, engine in (("a", {"threads": 1}), ("b", {"threads": 3, "memory_limit": "600MB", "tables": "disk"})):
        run({"dataset": {"name": "outbrain", "folder": str(folder), "feature_set": name}, "engine": engine,
             "out": str(tmp_path / out)}, "test.yaml")
        files.append({path.relative_to(tmp_path / out): path for path in (tmp_path / out).rglob("*.bin")})
    assert files[0].keys() == files[1].keys()
    for path, one in files[0].items():
        if path.name == "numerical.bin":  # sums of floats in another order
            np.testing.assert_allclose(np.fromfile(one, "f4"), np.fromfile(files[1][path], "f4"), atol=1e-6)
        else:
            assert one.read_bytes() == files[1][path].read_bytes(), path


def test_a_run_that_was_stopped_goes_on(prepare, tmp_path, monkeypatch, capsys):
    whole = prepare(name="whole")[1]
    folder = write_tables(tmp_path / "raw", TABLES)
    for function in ("store_displays", "store_features", "_write"):
        with monkeypatch.context() as patch:
            patch.setattr(outbrain, function, lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                prepare(folder=folder)
        assert not (tmp_path / "out").exists()
    capsys.readouterr()
    again = prepare(folder=folder)[1]
    assert "resuming" in capsys.readouterr().err
    for mapping, columns in whole.items():
        for name, column in columns.items():
            np.testing.assert_array_equal(np.array(column, object), np.array(again[mapping][name], object))
    prepare(folder=folder)
    assert "already prepared" in capsys.readouterr().err


# ---- bad input: one message each, nothing half-written


def test_files_that_are_not_there(prepare, tmp_path):
    for name in HEADERS:
        folder = write_tables(tmp_path / f"{name}_raw", TABLES)
        (folder / f"{name}.csv").unlink()
        raises(prepare, name, "no file of that pattern", folder=folder, feature_set="profiles", tmp_path=tmp_path)
    raises(prepare, "no such folder", "kaggle", folder=tmp_path / "nowhere", tmp_path=tmp_path)


def test_files_with_other_columns(prepare, tmp_path):
    for name, header in HEADERS.items():
        for column in header:
            folder = write_tables(tmp_path / f"{name}_{column}_raw", TABLES)
            path = folder / f"{name}.csv"
            path.write_text(path.read_text().replace(column, "other", 1))
            if (name, column) not in (("page_views", "platform"), ("page_views", "geo_location")):
                raises(prepare, f"{name}.csv", f"no column {column!r}", folder=folder, feature_set="profiles",
                       tmp_path=tmp_path)


@pytest.mark.parametrize(("tables", "words"), [
    ({"events": lambda rows: [row for row in rows if row["display_id"] not in (3, 5)]},
     ("clicks_train.csv", "2 displays without an event", "display_id 3", "events.csv")),
    ({"promoted_content": lambda rows: rows[1:]}, ("1 ad without a document", "ad_id 1", "promoted_content.csv")),
    ({"promoted_content": lambda rows: [{**rows[0], "document_id": None}, *rows[1:]]}, ("1 ad without a document",)),
    ({"clicks_train": lambda rows: [{**row, "clicked": 0} for row in rows]}, ("without a click", "clicks_test.csv")),
    ({"clicks_train": lambda rows: [{**rows[0], "clicked": 2}, *rows[1:]]}, ("clicks_train.csv, line 2", "2 in c")),
    ({"clicks_train": lambda rows: []}, ("clicks_train.csv", "no rows")),
    ({"events": lambda rows: [*rows, rows[0]]}, ("events.csv", "display_id 1 in 2 rows")),
    ({"promoted_content": lambda rows: [*rows, rows[4]]}, ("promoted_content.csv", "ad_id 5 in 2 rows")),
    ({"documents_meta": lambda rows: [*rows, rows[0]]}, ("documents_meta.csv", "document_id 1 in 2 rows")),
    ({"events": lambda rows: [{**row, "platform": None} for row in rows]}, ("events.csv", "no value of platform")),
    ({"documents_meta": lambda rows: [{**row, "source_id": None} for row in rows]}, ("no value of source_id",)),
    ({"documents_meta": lambda rows: [{**row, "publish_time": "soon"} for row in rows]}, ("publish_time",)),
    ({"documents_topics": lambda rows: [*rows, *({**rows[0], "topic_id": n} for n in range(1500))]},
     ("documents_topics.csv", "topics", "dataset.max_aspects")),
    ({"events": lambda rows: [{**rows[0], "timestamp": "noon"}, *rows[1:]]}, ("events.csv, line 2", "'noon'")),
], ids=str)
def test_tables_that_do_not_fit_together(prepare, tmp_path, tables, words):
    raises(prepare, *words, tables=changed(**tables), tmp_path=tmp_path)


def test_bad_lines_of_page_views_are_found_and_counted(prepare, tmp_path):
    tables = changed(page_views=lambda rows: [*rows, {**rows[0], "timestamp": "late"}])
    raises(prepare, f"page_views.csv, line {len(tables['page_views']) + 1}", "'late'", tables=tables,
           feature_set="profiles", tmp_path=tmp_path)
    _, one = prepare(tables, feature_set="profiles", max_bad_rows=1)
    _, two = prepare(feature_set="profiles", name="two")
    np.testing.assert_array_equal(one["train"]["user_views"], two["train"]["user_views"])


def test_a_split_without_a_test_is_refused(prepare):
    raises(prepare, "no display for test", test_share=0.0, test_from_day=99)
    raises(prepare, "no display for train", test_from_day=0)


@pytest.mark.parametrize(("options", "words"), [
    ({"feature_set": "v2"}, ("feature_set", "clickwise")),
    ({"folds": 1, "feature_set": "clickwise"}, ("folds",)),
    ({"files": {"click": "x.csv"}}, ("files", "clicks")),
    ({"test_share": 1.0}, ("test_share",)),
    ({"frequency_limits": {"ad": 3}, "feature_set": "clickwise"}, ("frequency_limits", "ad_id")),
    ({"frequency_limit": -1}, ("frequency_limit",)),
])
def test_recipes_that_cannot_be(prepare, options, words):
    raises(prepare, *words, error=RecipeError, **options)


@pytest.mark.parametrize("name", ["prepare", "prepare_multihot", "prepare_profiles"])
def test_shipped_recipes_can_be_read(name):
    section = load(f"outbrain/{name}")["dataset"]
    parse(outbrain.OutbrainConfig, {key: value for key, value in section.items() if key != "name"}, name)
