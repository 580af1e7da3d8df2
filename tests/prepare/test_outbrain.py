"""Preparation of Outbrain: the split, our own feature set, what does not leak, interrupted runs."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from outbrain_rows import DAY_MS, HEADERS, IDS, Reference, changed, hash60, ids, random_tables, write_tables
from prepared_columns import read
from sklearn.metrics import roc_auc_score

from clickwise.data.synthetic import synthesize_raw_outbrain
from clickwise.prepare import run

TABLES = random_tables(60, seed=2)
KEYS = ("ad_id", "document_id_promo", "source_id_promo", "publisher_id_promo", "advertiser_id", "campaign_id")


# ---- the split


def test_displays_are_split_by_day_and_hash(outbrain):
    _, found = outbrain(seed=3, test_share=0.5)
    displays = {mapping: set(columns["display_id"]) for mapping, columns in found.items()}
    assert not displays["train"] & displays["test"]
    for event in TABLES["events"]:
        late = event["timestamp"] // DAY_MS >= 11
        test = late or hash60(f"3/{event['display_id']}") < 0.5 * 2**60
        assert event["display_id"] in displays["test" if test else "train"]
    assert len(found["train"]["display_id"]) + len(found["test"]["display_id"]) == len(TABLES["clicks_train"])
    for columns in found.values():
        assert columns["display_id"].tolist() == sorted(columns["display_id"])


def test_share_of_days_0_to_10(outbrain):
    tables = random_tables(600, seed=1)
    _, found = outbrain(tables)
    early = {event["display_id"] for event in tables["events"] if event["timestamp"] < 11 * DAY_MS}
    share = len(early & set(found["test"]["display_id"])) / len(early)
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(early))


def test_the_order_of_the_raw_files_changes_nothing(outbrain, plain_outbrain):
    _, one = plain_outbrain()
    names = ("clicks_train", "events", "promoted_content", "documents_meta")
    _, two = outbrain(changed(TABLES, **dict.fromkeys(names, lambda rows: rows[::-1])), name="two")
    for mapping, columns in one.items():
        for name, column in columns.items():
            np.testing.assert_array_equal(np.array(column, object), np.array(two[mapping][name], object), name)


def test_a_ready_made_list_of_test_displays(outbrain, tmp_path):
    (tmp_path / "list.csv").write_text("display_id\n4\n7\n7\n999\n")
    _, found = outbrain(test_displays=str(tmp_path / "list.csv"))
    assert set(found["test"]["display_id"]) == {4, 7}


# ---- our own features


def test_rates_come_from_the_displays_of_other_folds(outbrain):
    spec, found = outbrain(feature_set="clickwise", folds=4, rate_weight=5.0)
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
            assert scales[name]["shift"] == pytest.approx(np.mean(train), abs=1e-6)
            assert scales[name]["width"] == pytest.approx(np.std(train, ddof=1) or 1, rel=1e-6)
            for mapping, column in r.mappings(values).items():
                np.testing.assert_allclose(unscaled(found[mapping][name], scales[name]), column, atol=1e-5)


def unscaled(column, scale):
    return np.asarray(column, np.float64) * scale["width"] + scale["shift"]


def test_ids_keep_missing_rare_and_frequent_values_apart(outbrain):
    spec, found = outbrain(feature_set="clickwise", frequency_limits={"geo_location": 14})
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


def test_lists_hold_the_most_certain_known_aspects(outbrain):
    spec, found = outbrain(feature_set="clickwise", frequency_limits={"entities_promo": 8})
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
def test_labels_of_the_test_enter_no_feature(outbrain, plain_outbrain, name):
    _, before = plain_outbrain(name)
    test = set(before["test"]["display_id"])

    def turned(rows):
        return [{**row, "clicked": 1 - row["clicked"]} if row["display_id"] in test else row for row in rows]

    _, after = outbrain(changed(TABLES, clicks_train=turned), feature_set=name, name="b")
    for mapping, columns in before.items():
        for feature, column in columns.items():
            if (mapping, feature) != ("test", "clicked"):
                np.testing.assert_array_equal(np.array(column, object), np.array(after[mapping][feature], object))


def test_no_label_of_its_own_display_enters_a_row(outbrain):
    """The click of a training display moves to another of its ads: nothing changes in the rows of its fold."""
    spec, before = outbrain(feature_set="clickwise", folds=3, name="a")
    display = before["train"]["display_id"][0]

    def moved(rows):
        mine = [row for row in rows if row["display_id"] == display]
        ad = next(row["ad_id"] for row in mine if not row["clicked"])
        return [{**row, "clicked": int(row["ad_id"] == ad)} if row["display_id"] == display else row for row in rows]

    other, after = outbrain(changed(TABLES, clicks_train=moved), feature_set="clickwise", folds=3, name="b")
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


def test_similarity_golden(outbrain):
    """N = 1000; {a: .9, df 10; b: .1, df 100} and {a: .5; c: .5, df 50}: 0.810643 by ln ln, 0.836956 by ln."""
    aspects = [(1, 1, 0.9), (1, 2, 0.1), (2, 1, 0.5), (2, 3, 0.5)]
    for id_, df in ((1, 8), (2, 99), (3, 49)):
        aspects += [(999 - index, id_, 0.5) for index in range(df)]
    tables = changed(
        TABLES,
        documents_meta=lambda rows: [dict(zip(HEADERS["documents_meta"], (d, 1, 1, "2016-06-01 00:00:00"), strict=True))
                                     for d in range(1000)],
        documents_categories=lambda rows: [dict(zip(HEADERS["documents_categories"], row, strict=True))
                                           for row in aspects],
        promoted_content=lambda rows: [{**row, "document_id": 2} for row in rows],
        events=lambda rows: [{**row, "document_id": 1, "platform": 1, "geo_location": "US"} for row in rows])
    for name, feature, expected in (("v1_spark", "doc_event_doc_ad_sim_categories", 0.810643),
                                    ("v1_nvtabular", "document_id_document_id_promo_sim_categories", 0.836956)):
        _, found = outbrain(tables, feature_set=name, name=name)
        np.testing.assert_allclose(found["train"][feature], expected, atol=1e-6)


# ---- how it is stored


def test_what_is_fitted_is_kept(plain_outbrain):
    places = pq.read_table(plain_outbrain()[0].folder / "preparation" / "event_counts.parquet").to_pylist()
    counts = Reference(TABLES, "v1_spark").event_count("country")
    assert {row["value"]: row["n"] for row in places if row["column"] == "geo_location_country"} == {
        value: n for value, n in counts.items() if value is not None}
    spec, _ = plain_outbrain("clickwise")
    folder = spec.folder / "preparation"
    assert {file.stem for file in (folder / "rates").iterdir()} == {*KEYS, "mean"}
    assert {file.stem for file in (folder / "aspects").iterdir()} == set(IDS)
    own = {file.stem for file in (folder / "vocabularies").iterdir()}
    assert own == set(spec.channels["categorical"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["displays"]["train"]["no_click"] == 0 and summary["rows_read"]["events"] == 60
    assert spec.channels["display"] == ("display_id",)


def test_empty_fields_are_missing_too(outbrain, plain_outbrain):
    _, one = plain_outbrain()
    _, two = outbrain(missing="", name="two")
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


def test_a_run_that_was_stopped_goes_on(outbrain, plain_outbrain, tmp_path, monkeypatch, capsys):
    _, whole = plain_outbrain()
    folder = write_tables(tmp_path / "raw", TABLES)

    def stop(*_, **__):
        raise KeyboardInterrupt

    for function in ("store_displays", "store_features", "Outbrain.write"):
        with monkeypatch.context() as patch:
            patch.setattr(f"clickwise.prepare.outbrain.{function}", stop)
            with pytest.raises(KeyboardInterrupt):
                outbrain(folder=folder, engine={"tables": "disk"})
        assert not (tmp_path / "out").exists()
    capsys.readouterr()
    again = outbrain(folder=folder, engine={"tables": "disk"})[1]
    assert "resuming" in capsys.readouterr().err
    for mapping, columns in whole.items():
        for name, column in columns.items():
            np.testing.assert_array_equal(np.array(column, object), np.array(again[mapping][name], object))
    outbrain(folder=folder, engine={"tables": "disk"})
    assert "already prepared" in capsys.readouterr().err
