"""Raw files of Outbrain that cannot be prepared: one message each, nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest
from outbrain_rows import HEADERS, changed, random_tables, write_tables

from clickwise.errors import PrepareError, RecipeError
from clickwise.prepare.outbrain import OutbrainConfig
from clickwise.recipe import load, parse

TABLES = random_tables(60, seed=2)


def raises(outbrain, *words, error=PrepareError, tmp_path=None, **options):
    with pytest.raises(error) as caught:
        outbrain(**options)
    for word in words:
        assert word in str(caught.value)
    if tmp_path is not None:
        assert not [path for path in tmp_path.iterdir() if not path.name.endswith("_raw")]


def test_files_that_are_not_there(outbrain, tmp_path):
    for name in HEADERS:
        folder = write_tables(tmp_path / f"{name}_raw", TABLES)
        (folder / f"{name}.csv").unlink()
        raises(outbrain, name, "no file of that pattern", folder=folder, feature_set="profiles", tmp_path=tmp_path)
    raises(outbrain, "no such folder", "kaggle", folder=tmp_path / "nowhere", tmp_path=tmp_path)


def test_files_with_other_columns(outbrain, tmp_path):
    for name, header in HEADERS.items():
        for column in header:
            folder = write_tables(tmp_path / f"{name}_{column}_raw", TABLES)
            path = folder / f"{name}.csv"
            path.write_text(path.read_text().replace(column, "other", 1))
            if (name, column) not in (("page_views", "platform"), ("page_views", "geo_location")):
                raises(outbrain, f"{name}.csv", f"no column {column!r}", folder=folder, feature_set="profiles",
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
], ids=lambda value: value[0] if isinstance(value, tuple) else ",".join(value))
def test_tables_that_do_not_fit_together(outbrain, tmp_path, tables, words):
    raises(outbrain, *words, tables=changed(TABLES, **tables), tmp_path=tmp_path)


def test_bad_lines_of_page_views_are_found_and_counted(outbrain, tmp_path):
    tables = changed(TABLES, page_views=lambda rows: [*rows, {**rows[0], "timestamp": "late"}])
    raises(outbrain, f"page_views.csv, line {len(tables['page_views']) + 1}", "'late'", tables=tables,
           feature_set="profiles", tmp_path=tmp_path)
    _, one = outbrain(tables, feature_set="profiles", max_bad_rows=1)
    _, two = outbrain(feature_set="profiles", name="two")
    np.testing.assert_array_equal(one["train"]["user_views"], two["train"]["user_views"])


@pytest.mark.parametrize("column", ["uuid", "document_id", "timestamp", "traffic_source"])
def test_page_views_without_any_value_of_a_column(outbrain, tmp_path, column):
    tables = changed(TABLES, page_views=lambda rows: [{**row, column: None} for row in rows])
    raises(outbrain, "page_views.csv", f"no value of {column} in any of {len(tables['page_views'])} rows",
           tables=tables, feature_set="profiles", tmp_path=tmp_path)


def test_a_split_without_a_test_is_refused(outbrain):
    raises(outbrain, "no display for test", test_share=0.0, test_from_day=99)
    raises(outbrain, "no display for train", test_from_day=0)


@pytest.mark.parametrize(("options", "words"), [
    ({"feature_set": "v2"}, ("feature_set", "clickwise")),
    ({"folds": 1, "feature_set": "clickwise"}, ("folds",)),
    ({"files": {"click": "x.csv"}}, ("files", "clicks")),
    ({"test_share": 1.0}, ("test_share",)),
    ({"frequency_limits": {"ad": 3}, "feature_set": "clickwise"}, ("frequency_limits", "ad_id")),
    ({"frequency_limit": -1}, ("frequency_limit",)),
])
def test_recipes_that_cannot_be(outbrain, options, words):
    raises(outbrain, *words, error=RecipeError, **options)


@pytest.mark.parametrize("name", ["prepare", "prepare_multihot", "prepare_profiles"])
def test_shipped_recipes_can_be_read(name):
    section = load(f"outbrain/{name}")["dataset"]
    parse(OutbrainConfig, {key: value for key, value in section.items() if key != "name"}, name)
