"""Amazon Books: logs and samples as plain Python would make them, shapes of metadata, errors, raw files made up."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from amazon_rows import expected, product, products, random_reviews, review, with_unseen_items, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from clickwise.data.check import check_columns
from clickwise.data.columns import read_columns
from clickwise.data.loader import Loader
from clickwise.data.synthetic import synthesize_raw_amazon
from clickwise.errors import PrepareError, RecipeError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import run, summary
from clickwise.prepare.amazon_books import metadata
from clickwise.prepare.amazon_books.metadata import SEPARATOR, parse_block, parse_product, store_metadata
from clickwise.prepare.raw_files import BadRows

REVIEWS = random_reviews()


@pytest.fixture
def prepare(tmp_path):
    """`prepare(reviews, metadata, **options)` writes the raw files and returns the prepared folder."""
    def prepare(reviews=None, metadata=None, *, name="out", ending="", **options):
        lines = [review(*row) for row in reviews] if reviews and isinstance(reviews[0], tuple) else reviews
        files = {"reviews": write_lines(tmp_path / f"{name}_raw" / f"reviews.json{ending}",
                                        lines or [review(*row) for row in REVIEWS]),
                 "metadata": write_lines(tmp_path / f"{name}_raw" / f"meta.json{ending}", metadata or products())}
        section = {"name": "amazon_books", **{key: [str(file)] for key, file in files.items()}, "min_events": 3,
                   "shuffle": False, **options}
        return run({"dataset": section, "engine": {"threads": 1}, "out": str(tmp_path / name)}, "test.yaml")

    return prepare


def read_log(out):
    spec = FeatureSpec.load(out)
    offsets = np.fromfile(out / "events/offsets.bin", "int64")
    columns = [np.fromfile(out / f"events/{name}.bin", spec.features[f"{name}_history"].dtype)
               for name in ("item", "category")]
    if (out / "events/time.bin").exists():
        columns.append(np.fromfile(out / "events/time.bin", "int64"))
    return [[column[a:b].tolist() for a, b in zip(offsets[1:], offsets[2:], strict=False)] for column in columns]


def read_samples(out, mapping):
    return [np.fromfile(out / mapping / f"{name}.bin", dtype).tolist()
            for name, dtype in (("user_id", "int32"), ("position", "int32"), ("label", "bool"))]


def every_file(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.bin"))}


@pytest.mark.parametrize("options", [
    {}, {"repeats": "keep"}, {"fit_on": "all"}, {"validation": False}, {"min_events": 8}, {"min_events": 1}])
def test_the_log_is_every_users_events_in_order(prepare, options):
    out = prepare(time_gap=True, **options)
    settings_ = {"held_out": 1 if "validation" in options else 2,
                 **{key: value for key, value in options.items() if key != "validation"}}
    users, *log = expected(REVIEWS, **settings_)
    assert read_log(out) == log
    assert summary(out)["cardinalities"]["user_id"] == len(users) + 1
    assert np.fromfile(out / "events/offsets.bin", "int64")[:2].tolist() == [0, 0]  # user 0 is nobody


@pytest.mark.parametrize(("validation", "min_history", "each"), [(True, 1, 1), (False, 1, 1), (True, 3, 2)])
def test_samples_are_every_prefix_and_the_last_events(prepare, validation, min_history, each):
    out = prepare(validation=validation, min_history=min_history, negatives_per_positive=each)
    counts = [len(items) for items in expected(REVIEWS)[1]]
    held = 2 if validation else 1
    samples = {"train": [(user, position) for user, count in enumerate(counts, 1)
                         for position in range(min_history, count - held)],
               "test": [(user, count - 1) for user, count in enumerate(counts, 1) if count > min_history],
               "validation": [(user, count - 2) for user, count in enumerate(counts, 1) if count > min_history + 1]}
    mappings = FeatureSpec.load(out).mappings
    assert set(mappings) == {"train", "test", *(["validation"] if validation else [])}
    for mapping in mappings:
        user, position, label = read_samples(out, mapping)
        assert list(zip(user, position, strict=True)) == [
            sample for sample in samples[mapping] for _ in range(1 + each)]
        assert label == [True, *[False] * each] * len(samples[mapping])
        assert summary(out)["rows"][mapping] == len(label)


def test_the_reference_counts_of_a_worked_example(prepare):
    """Five events: (a → b), (a b → c), (a b c → d) train, (a b c d → e) tests, each with a drawn target beside it."""
    rows = [("U", f"{item:010d}", 86400 * item) for item in range(5)]
    out = prepare([*rows, *(("V", f"{item:010d}", 0) for item in range(5, 11))], validation=False, repeats="keep",
                  fit_on="all", negatives="compat")
    assert summary(out)["rows"] == {"train": 2 * (3 + 4), "test": 4}
    spec = FeatureSpec.load(out)
    assert spec.chunks("train")[-1].options == {"negatives": "compat"}


def test_what_is_prepared_is_what_a_loader_delivers(prepare):
    out = prepare(time_gap=True, history_length=4)
    spec, (_, items, categories, _) = FeatureSpec.load(out), expected(REVIEWS)
    for mapping in ("train", "validation", "test"):
        check_columns(spec, mapping)
        columns = read_columns(spec, mapping)
        (batch,) = Loader(columns, spec, batch_size=columns.rows).epoch(0)
        user, position, label = read_samples(out, mapping)
        assert batch.display.tolist() == batch.user[0].tolist() == user
        for row, (u, p) in enumerate(zip(user, position, strict=True)):
            assert batch.history[0][row].tolist() == ([0] * 4 + items[u - 1][:p])[-4:]
            if label[row]:
                assert [ids_B[row].item() for ids_B in batch.target_item] == [items[u - 1][p], categories[u - 1][p]]
    assert set(items[0]) - {0}


@pytest.mark.parametrize("options", [{}, {"negatives_per_positive": 3}, {"negatives": "uniform"},
                                     {"negatives": "compat"}, {"min_history": 4}])
def test_unseen_targets_have_both_labels_and_rows_are_written_as_raw_rows(prepare, options):
    reviews = with_unseen_items()
    out = prepare(reviews, [product(f"{item:010d}", [["Books", f"Kind {item % 3}"]]) for item in range(40)], **options)
    spec, facts = FeatureSpec.load(out), summary(out)
    ids = {row["item"]: row for row in parquet.read_table(out / "preparation/items.parquet").to_pylist()}
    users = {row["value"]: row["id"] for row in parquet.read_table(
        out / "preparation/vocabularies/user_id.parquet").to_pylist()}
    each = 1 + options.get("negatives_per_positive", 1)
    for mapping in ("validation", "test"):
        columns = read_columns(spec, mapping)
        (batch,) = Loader(columns, spec, batch_size=columns.rows).epoch(0)
        unseen, label = (batch.target_item[0] == 0).numpy(), batch.label.numpy()
        assert unseen.sum() == facts["rows_without_an_id"][mapping] == each * unseen[label].sum() > 0

        rows = parquet.read_table(out / f"preparation/rows/{mapping}.parquet").to_pylist()
        assert len(rows) == facts["raw_rows"][mapping] == len(batch)
        for index, row in enumerate(rows):
            item = ids[row["asin"]]
            assert (users[row["reviewerID"]], item["item_id"], item["category_id"], row["label"]) == (
                batch.user[0][index], batch.target_item[0][index], batch.target_item[1][index], label[index])
            came = rows[index - index % each]
            assert came["label"] == 1 and row["unixReviewTime"] == came["unixReviewTime"]
            event = (row["reviewerID"], row["asin"], row["unixReviewTime"])
            if row["label"]:
                assert event in reviews
            elif mapping == "test" and options.get("negatives") != "compat":  # by then the user had all
                assert event[:2] not in {review[:2] for review in reviews}
    assert facts["rows_without_an_id"]["train"] == 0


def test_raw_rows_of_a_log_too_large_to_draw_from_are_left_out(prepare, monkeypatch):
    from clickwise.prepare.amazon_books import drawn

    monkeypatch.setattr(drawn, "BYTES_PER_EVENT", 10**9)
    out = prepare()
    assert summary(out)["raw_rows"] == {"validation": None, "test": None}
    assert not (out / "preparation/rows").exists() and not list(out.rglob("*_rows.parquet"))


def test_a_shuffle_is_a_permutation_and_changes_nothing_else(prepare):
    plain, mixed, again = prepare(name="a"), prepare(name="b", shuffle=True, seed=3), \
        prepare(name="c", shuffle=True, seed=3)
    assert every_file(mixed) == every_file(again)
    rows = [list(zip(*read_samples(out, "train"), strict=True)) for out in (plain, mixed)]
    assert rows[0] != rows[1] and sorted(rows[0]) == sorted(rows[1])
    others = {name for name in every_file(plain) if not name.startswith("train/")}
    assert all(every_file(plain)[name] == every_file(mixed)[name] for name in others)


def test_neither_order_of_lines_nor_compression_nor_threads_matter(prepare, tmp_path):
    first = prepare(name="a", time_gap=True)
    backwards = prepare(REVIEWS[::-1], name="b", ending=".gz", time_gap=True)
    assert every_file(first) == every_file(backwards)


def test_preparing_again_does_nothing_and_a_stopped_run_goes_on(prepare, tmp_path, capsys, monkeypatch):
    from clickwise.prepare import amazon_books

    monkeypatch.setattr(amazon_books, "write_log", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        section = {"name": "amazon_books", "min_events": 3, "reviews": [str(write_lines(
            tmp_path / "raw/r.json", [review(*row) for row in REVIEWS]))],
            "metadata": [str(write_lines(tmp_path / "raw/m.json", products()))]}
        recipe = {"dataset": section, "engine": {"threads": 1, "tables": "disk"}, "out": str(tmp_path / "p")}
        run(recipe, "test.yaml")
    monkeypatch.undo()
    capsys.readouterr()
    run(recipe, "test.yaml")
    stages = "metadata read, reviews read, events, vocabularies"
    assert f"resuming an earlier run after: {stages}" in capsys.readouterr().err
    run(recipe, "test.yaml")
    assert "already prepared" in capsys.readouterr().err


# ---- metadata


categories = st.lists(st.lists(st.text(min_size=1), max_size=3), max_size=4)
extras = st.dictionaries(st.sampled_from(["title", "brand", "asin2", "related"]),
                         st.text() | st.floats(allow_nan=False, allow_infinity=False)
                         | st.lists(st.text(), max_size=2), max_size=3)


@given(item=st.text("0123456789ABX", min_size=1), paths=st.none() | categories, more=extras,
       as_json=st.booleans(), most=st.integers(1, 3))
@settings(deadline=None, max_examples=200)
def test_any_product_is_read_as_python_reads_it(item, paths, more, as_json, most):
    content = {**more, "asin": item, **({} if paths is None else {"categories": paths})}
    line = (json.dumps(content) if as_json else repr(content)).encode()
    last = [path[-1] for path in (paths or [])[: 1 if most == 1 else None] if path]
    expected_categories = [*dict.fromkeys(last)][:most]
    if most > 1:
        expected_categories = [category.replace(SEPARATOR, " ") for category in expected_categories]
    assert parse_product(line, most) == (item, SEPARATOR.join(expected_categories) or None)


@pytest.mark.parametrize(("line", "found"), [
    ("{'asin': '1', 'categories': [['Books', 'A']]}", ("1", "A")),
    ('{"asin": "1", "category": ["Books", "A", "B"]}', ("1", "B")),
    ("{'asin': '1', 'title': '', 'categories': [['Books']], 'price': 3.5}", ("1", "Books")),
    ("{'asin': '1', 'categories': [['A, B', 'C, D'], ['E']]}", ("1", "C, D")),
    ("{'asin': '1', 'categories': [['']]}", ("1", None)),
    ("{'like': {'asin': '2'}, 'asin': '1', 'categories': [['A']]}", ("1", "A")),
    ("{'asin': '1', 'categories': None}", ("1", None))])
def test_shapes_of_metadata(line, found):
    assert parse_product(line.encode()) == found


@pytest.mark.parametrize(("paths", "found"), [
    ([["Books", "A"], ["Books", "B"], ["X", "A"], ["C"]], ["A", "B", "C"]), ([["A"], [], ["B"]], ["A", "B"]),
    ([[], ["B"]], ["B"]), ([["'"], ["]"], ["], ["]], ["'", "]", "], ["]), ([["A", ", ], "]], [", ], "]), ([[]], None),
    ([["A", "]x]"], ["B"]], ["]x]", "B"])])
def test_several_categories(paths, found):
    for line in (product("1", paths), json.dumps({"asin": "1", "categories": paths})):
        assert parse_product(line.encode(), 3)[1] == (found and SEPARATOR.join(found))


@pytest.mark.parametrize("fit_on", ["train", "all"])
def test_further_categories_are_features_that_share_a_table(prepare, fit_on):
    dice = random.Random(2)
    of = {f"{item:010d}": dice.sample("abcdef", dice.randrange(4)) for item in range(12)}
    out = prepare(metadata=[product(item, [["Books", name] for name in names]) for item, names in of.items()],
                  categories=2, fit_on=fit_on, history_length=4)
    spec = FeatureSpec.load(out)
    assert [spec.features[f"category_2{ending}"].extra for ending in ("", "_history", "_negatives")] == [
        {"list_of": f"category{ending}"} for ending in ("", "_history", "_negatives")]
    ids = {row["value"]: row["id"] for row in parquet.read_table(
        out / "preparation/vocabularies/category.parquet").to_pylist()}
    categories = {0: None} | {row["item_id"]: [ids.get(name, 0) for name in [*(of[row["item"]] or ["no_category"]), ""][
        :2]] for row in parquet.read_table(out / "preparation/items.parquet").to_pylist() if row["item_id"]}
    check_columns(spec, "train")
    columns = read_columns(spec, "train")
    (batch,) = Loader(columns, spec, batch_size=columns.rows).epoch(0)
    for item, *found in zip(*(ids_B.tolist() for ids_B in batch.target_item), strict=True):
        assert found == categories[item]
    for channel in (batch.history, batch.negative_history):
        for item, *found in zip(*(ids_BL.reshape(-1).tolist() for ids_BL in channel), strict=True):
            assert found == (categories[item] or [0, 0])
    assert len({tuple(found) for found in categories.values() if found}) > 3


@pytest.mark.parametrize("line", ["{'asin': '1'", "[1, 2]", "{'title': 'x'}", "{'asin': 7}", "\xff", "__import__('os')",
                                  "{'asin': ''}", "{'asin': '1', 'categories': [['A']]"])
def test_lines_that_are_no_product(line):
    with pytest.raises(ValueError):
        parse_product(line.encode("latin-1"))


def test_blocks_and_processes_change_nothing(tmp_path, monkeypatch):
    lines = [product(f"{item:010d}", [["Books", f"{'Kind' * (item % 5)} {item}"]]) for item in range(300)]
    for ending in ("", ".gz"):
        file = write_lines(tmp_path / f"m.json{ending}", lines)
        found = []
        for size, processes in ((1 << 22, 1), (100, 1), (1000, 2)):
            monkeypatch.setattr(metadata, "BLOCK_BYTES", size)
            store_metadata([file], tmp_path / "m.parquet", processes=processes if not ending else 1,
                           bad_rows=BadRows(0, tmp_path))
            found.append((tmp_path / "m.parquet").read_bytes()[:0] + b"".join(sorted(table_rows(tmp_path))))
        assert found[0] == found[1] == found[2]


def table_rows(folder):
    from pyarrow import parquet

    return [repr(row).encode() for row in parquet.read_table(folder / "m.parquet").to_pylist()]


def test_empty_lines_are_no_products():
    assert parse_block(b"\n{'asin': '1'}\n\n") == (["1"], [None], [], 3)


# ---- errors


@pytest.mark.parametrize(("bad", "words"), [
    ("{\"reviewerID\": \"A\"", ["reviews.json, line 3", "no JSON"]),
    (json.dumps({"reviewerID": "A", "asin": "1"}), ["line 3", "unixReviewTime: None"]),
    (json.dumps({"reviewerID": "A", "asin": "1", "unixReviewTime": "soon"}), ["line 3", "unixReviewTime: 'soon'"]),
    (json.dumps({"reviewerID": "", "asin": "1", "unixReviewTime": 0}), ["line 3", "reviewerID: ''"]),
    (json.dumps({"reviewerID": "A", "asin": None, "unixReviewTime": 0}), ["line 3", "asin: None"])])
def test_reviews_that_cannot_be_read(prepare, bad, words):
    lines = [review(*row) for row in REVIEWS]
    with pytest.raises(PrepareError) as error:
        prepare([*lines[:2], bad, *lines[2:]])
    assert all(word in str(error.value) for word in words), error.value
    out = prepare([*lines[:2], bad, *lines[2:]], max_bad_rows=1, name="skipping")
    assert list(summary(out)["bad_rows_skipped"].values()) == [1]
    assert every_file(out) == every_file(prepare(lines, name="without"))


def test_products_that_cannot_be_read(prepare):
    lines = products()
    with pytest.raises(PrepareError) as error:
        prepare(metadata=[*lines[:4], "{'asin': ", *lines[4:]])
    assert "meta.json, line 5" in str(error.value) and "max_bad_rows" in str(error.value)
    out = prepare(metadata=[*lines[:4], "{'asin': ", *lines[4:]], max_bad_rows=1, name="skipping")
    assert every_file(out) == every_file(prepare(name="without"))


def test_bad_lines_of_both_files_count_together(prepare):
    with pytest.raises(PrepareError, match="bad row|no JSON"):
        prepare([*(review(*row) for row in REVIEWS), "{"], [*products(), "{"], max_bad_rows=1)


@pytest.mark.parametrize(("options", "words"), [
    ({"min_events": 50}, ["min_events", "the most that one has is 12"]),
    ({"min_events": 1, "min_history": 40}, ["min_history", "no sample for train"])])
def test_nothing_left(prepare, options, words):
    with pytest.raises(PrepareError) as error:
        prepare(**options)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(("options", "words"), [
    ({"min_events": 0}, ["min_events"]), ({"negatives_per_positive": 0}, ["negatives_per_positive"]),
    ({"negatives": "popular"}, ["negatives"]), ({"history_length": 0}, ["history_length"]),
    ({"seed": -1}, ["seed"]), ({"min_evnts": 3}, ["min_events"])])
def test_settings_that_cannot_be(prepare, options, words):
    with pytest.raises(RecipeError) as error:
        prepare(**options)
    assert all(word in str(error.value) for word in words), error.value


def test_a_missing_file(tmp_path):
    section = {"name": "amazon_books", "reviews": [str(tmp_path / "r.json")], "metadata": [str(tmp_path / "m.json")]}
    with pytest.raises(PrepareError, match="no such file"):
        run({"dataset": section, "out": str(tmp_path / "p")}, "test.yaml")


def test_damaged_gz(prepare, tmp_path):
    prepare(name="a", ending=".gz")
    section = {"name": "amazon_books", "min_events": 3, "reviews": [str(tmp_path / "a_raw/reviews.json.gz")],
               "metadata": [str(tmp_path / "a_raw/meta.json.gz")]}
    for file in ("reviews", "meta"):
        path = tmp_path / f"a_raw/{file}.json.gz"
        good = path.read_bytes()
        for bad in (good[:len(good) // 2], good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]):  # cut off; a wrong checksum
            path.write_bytes(bad)
            with pytest.raises(PrepareError, match="cut off or damaged"):
                run({"dataset": section, "out": str(tmp_path / "b")}, "test.yaml")
        path.write_bytes(good)


# ---- raw files made up


def test_made_up_raw_files_are_the_same_for_a_seed_and_can_be_prepared(tmp_path):
    figures = synthesize_raw_amazon(tmp_path / "raw", 250, seed=3, threads=1)
    synthesize_raw_amazon(tmp_path / "again", 250, seed=3, threads=2)
    synthesize_raw_amazon(tmp_path / "other", 250, seed=4, threads=1)
    for name in ("reviews_Books.json", "meta_Books.json"):
        text = (tmp_path / "raw" / name).read_bytes()
        assert text == (tmp_path / "again" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()
    reviews = [json.loads(line) for line in open(tmp_path / "raw/reviews_Books.json")]
    assert len(reviews) == figures["reviews"] and all(row["unixReviewTime"] % 86400 == 0 for row in reviews)
    assert len({row["reviewerID"] for row in reviews}) == 250
    section = {"name": "amazon_books", "reviews": [str(tmp_path / "raw/reviews_Books.json")],
               "metadata": [str(tmp_path / "raw/meta_Books.json")]}
    out = run({"dataset": section, "engine": {"threads": 1}, "out": str(tmp_path / "p")}, "test.yaml")
    found = summary(out)
    assert 50 < found["users"] < 150 and found["rows"]["test"] == 2 * found["users"]
    assert 35 < found["events"] / found["users"] < 80 and found["items_without_a_category"] > 0


def test_the_history_of_a_made_up_reader_tells_what_comes_next(tmp_path):
    synthesize_raw_amazon(tmp_path / "raw", 250, seed=3, threads=1)
    section = {"name": "amazon_books", "reviews": [str(tmp_path / "raw/reviews_Books.json")],
               "metadata": [str(tmp_path / "raw/meta_Books.json")]}
    out = run({"dataset": section, "engine": {"threads": 1}, "out": str(tmp_path / "p")}, "test.yaml")
    spec = FeatureSpec.load(out)
    columns = read_columns(spec, "test")
    (batch,) = Loader(columns, spec, batch_size=columns.rows).epoch(0)
    seen = (batch.history[1] == batch.target_item[1][:, None]).float().mean(1)
    assert seen[batch.label].mean() > 3 * seen[~batch.label].mean()


def test_the_size_of_amazon_raw_is_its_users(clickwise):
    assert clickwise("synth", "amazon_raw", "--users", "30", "--out", "raw").code == 0
    for words in (["amazon_raw"], ["criteo_t15", "--users", "30"]):
        result = clickwise("synth", *words, "--out", "other")
        assert result.code == 2 and "--users" in result.err
