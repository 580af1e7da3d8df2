"""Any table of raw values against the same worked out row by row in plain Python."""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import json
import math
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickwise.data.columns import read_columns
from clickwise.errors import ClickwiseError, PrepareError, RecipeError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import run, table
from clickwise.prepare.bins import edges_of
from clickwise.prepare.infer import infer
from clickwise.prepare.table.config import TableConfig

COLUMNS = ["bought", "age", "income", "city", "zip", "tags", "session", "user", "when", "note"]
FEATURES = {
    "bought": {"dtype": "str"}, "age": {"dtype": "float32"}, "income": {"dtype": "float32"},
    "city": {"dtype": "str", "cardinality": "auto"}, "zip": {"dtype": "int32", "cardinality": 100000},
    "tags": {"dtype": "str", "cardinality": "auto", "max_hotness": 4}, "session": {"dtype": "int64"},
    "user": {"dtype": "str"}, "note": {"dtype": "str"}}
CHANNELS = {"label": ["bought"], "numerical": ["age", "income"], "categorical": ["city", "zip", "tags"],
            "display": ["session"], "item": ["user"], "left_out": ["note"]}
SETTINGS = {"label_is": "yes", "bins": 0, "frequency_limit": 3, "log_numericals": ["income"], "shuffle": False,
            "seed": 7}


def rows(count, seed=0):
    dice = random.Random(seed)
    return [{"bought": dice.choice(["yes", "no", "no"]), "age": dice.choice(["", "NA", *range(18, 60)]),
             "income": round(dice.expovariate(1e-4) * dice.choice([1, 1, -1]), 2),
             "city": dice.choice(["", " Oslo", "Bonn ", "São Paulo", "NA", *(f"town {dice.randrange(40)}",) * 2]),
             "zip": dice.choice([7, 10115, 99999, dice.randrange(10**5)]),
             "tags": "|".join(dice.choices("abcdefghij", k=dice.randrange(5))), "session": 10**15 + dice.randrange(9),
             "user": f"u{dice.randrange(30)}", "when": f"2024-01-{1 + index * 28 // count:02}", "note": dice.random()}
            for index in range(count)]


def write_spec(folder, mappings, features=FEATURES, channels=CHANNELS):
    folder.mkdir(parents=True, exist_ok=True)
    known = {name for names in channels.values() for name in names}
    content = {"feature_spec": {name: entry for name, entry in features.items() if name in known},
               "source_spec": mappings, "channel_spec": channels, "metadata": {}}
    (folder / "feature_spec.yaml").write_text(json.dumps(content))


def write_csv(path, table, columns=COLUMNS, header=True, delimiter=","):
    with (gzip.open(path, "wt", encoding="utf-8", newline="") if path.suffix == ".gz"
          else open(path, "w", encoding="utf-8", newline="")) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows(([columns] if header else []) + [[row[name] for name in columns] for row in table])


@pytest.fixture
def prepare(tmp_path):
    """`prepare(rows, ...)` writes a CSV and its spec (unless it is given `spec`) and returns the prepared folder."""
    def prepare(table=None, *, name="out", spec=None, features=None, channels=CHANNELS, engine=None, overwrite=False,
                **options):
        if spec is None:
            spec = tmp_path / "raw"
            features = {**FEATURES, **(features or {})}
            write_spec(spec, {"train": [{"type": "csv", "files": ["rows.csv"], "header": True,
                                         "features": [name for name in FEATURES if any(name in names for names
                                                                                       in channels.values())]}]},
                       features, channels)
            write_csv(spec / "rows.csv", table)
        section = {"name": "table", "spec": str(spec), **SETTINGS, **options}
        section = {key: value for key, value in section.items() if value is not None or key == "log_numericals"}
        recipe = {"dataset": section, "engine": {"threads": 1, **(engine or {})}, "out": str(tmp_path / name)}
        return run(recipe, "test.yaml", overwrite=overwrite)

    return prepare


# ---- the same in plain Python


def hash60(text):
    return int(hashlib.md5(str(text).encode()).hexdigest()[:15], 16)


def assigned(table, keys, seed=7, test=0.2, validation=0.1):
    """Mapping -> rows, assigned by the hash of their keys."""
    parts = {"train": [], "validation": [], "test": []}
    for row, key in zip(table, keys, strict=True):
        hashed = hash60(f"{seed}:{key}") / 2**60
        parts["test" if hashed < test else "validation" if hashed < test + validation else "train"].append(row)
    return parts


def known(value):
    return str(value).strip()


def vocabulary(values, limit):
    counts = Counter(value for value in values if value)
    return {value: index for index, (_, value) in enumerate(
        sorted((-count, value) for value, count in counts.items() if count >= limit), 1)}


def expected_columns(parts, limit=3, buckets=None, hash_only=()):
    """Mapping -> feature -> values, everything fitted on the training rows."""
    train, buckets = parts["train"], buckets or {}
    ids = {name: {} if name in hash_only else vocabulary([known(row[name]) for row in train], limit)
           for name in ("city", "zip")}
    tags = {} if "tags" in hash_only else vocabulary([tag for row in train for tag in row["tags"].split("|")], limit)

    def encode(name, value, vocabulary):
        if value in vocabulary or not value or name not in buckets:
            return vocabulary.get(value, 0)
        return len(vocabulary) + 1 + hash60(value) % buckets[name]

    def number(name, row):
        if str(row[name]) in ("", "NA"):
            return None
        value = float(row[name])
        return math.copysign(math.log1p(abs(value)), value) if name == "income" else value

    scales = {}
    for name in ("age", "income"):
        values = [number(name, row) for row in train if number(name, row) is not None]
        scales[name] = np.mean(values), np.std(values)
    return {mapping: {
        "bought": [row["bought"] == "yes" for row in table],
        **{name: [encode(name, known(row[name]), ids[name]) for row in table] for name in ids},
        "tags": [[id_ for tag in row["tags"].split("|") if (id_ := encode("tags", tag, tags))] for row in table],
        **{name: [0.0 if number(name, row) is None else (number(name, row) - mean) / std for row in table]
           for name, (mean, std) in scales.items()},
        "session": [row["session"] for row in table], "user": [hash60(row["user"]) for row in table],
    } for mapping, table in parts.items()}


def columns_of(out, mapping):
    spec = FeatureSpec.load(out)
    columns = read_columns(spec, mapping)
    lists = {name: [array[row].tolist() for row in range(len(array))] if hasattr(array, "offsets") else array.tolist()
             for name, array in columns.arrays.items()}
    return lists | dict(zip(spec.channels["numerical"], columns.numerical.T, strict=True))


def same(out, expected):
    for mapping, features in expected.items():
        found = columns_of(out, mapping)
        assert set(found) == set(features)
        for name, values in features.items():
            if name in ("age", "income"):
                np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
            else:
                assert found[name] == values, (mapping, name)


TABLE = rows(400)
ASSIGNED = assigned(TABLE, range(400))


def test_every_value_as_worked_out_row_by_row(prepare):
    out = prepare(TABLE)
    same(out, expected_columns(ASSIGNED))
    spec = FeatureSpec.load(out)
    assert spec.features["tags"].max_hotness == 4 and "left_out" not in spec.channels and "note" not in spec.features
    ids = {known(row["city"]) for row in ASSIGNED["train"]}
    assert spec.features["city"].cardinality <= len(ids) and {"Oslo", "NA"} <= ids
    assert set(json.loads((out / "preparation/summary.json").read_text())["rows"]) == {"train", "validation", "test"}


def test_small_tables_are_written_as_large_ones_are(prepare, monkeypatch):
    settings = {"bins": 8, "shuffle": True, "hash_buckets": {"city": 5, "tags": 3}, "log_numericals": None}
    small = prepare(TABLE, name="small", **settings)
    monkeypatch.setattr(table, "VALUE_BYTES", 10**9)
    large = prepare(TABLE, name="large", **settings)
    files = [file.relative_to(small) for file in sorted(small.rglob("*.bin"))]
    assert len(files) >= 3 * 9
    assert all((small / file).read_bytes() == (large / file).read_bytes() for file in files)
    assert (small / "feature_spec.yaml").read_text() == (large / "feature_spec.yaml").read_text()


def test_the_reasons_of_a_draft_are_kept_where_nobody_decided_otherwise(prepare, tmp_path):
    (tmp_path / "raw").mkdir()
    drafted = {"age": {"channel": "numerical", "why": "numbers 18 … 59", "check": "names?"},
               "city": {"channel": "numerical", "why": "as numbers", "check": "sure?"},
               "note": {"channel": "left_out", "why": "another value in every row", "check": ""}}
    (tmp_path / "raw/columns.json").write_text(json.dumps(drafted))
    told = json.loads((prepare(TABLE) / "preparation/columns.json").read_text())
    missing = told["age"].pop("missing")
    assert set(missing) == {"train", "validation", "test"} and 0 < missing["train"] < 0.2
    assert told["age"] == {**drafted["age"], "ids": None, "without_an_id": {}}
    assert told["city"]["why"] == "as the Feature Spec says; drafted as numerical" and told["city"]["check"] == ""
    assert told["city"]["ids"] > 3 and set(told["city"]["without_an_id"]) == {"train", "validation", "test"}
    assert told["note"]["channel"] == "left_out" and set(told) == set(FEATURES)
    (tmp_path / "raw/columns.json").write_text("[1]")
    with pytest.raises(ClickwiseError, match="columns.json"):
        prepare(TABLE, name="other")


@pytest.mark.parametrize("hash_only", [[], ["city", "tags"]], ids=["after the vocabulary", "instead of it"])
def test_rare_and_unseen_values_are_hashed(prepare, hash_only):
    buckets = {"city": 5, "tags": 3, "zip": 1}
    out = prepare(TABLE, hash_buckets=buckets, hash_only=hash_only)
    same(out, expected_columns(ASSIGNED, buckets=buckets, hash_only=hash_only))
    cardinality = FeatureSpec.load(out).features["city"].cardinality
    assert cardinality == 6 if hash_only else cardinality > 6


def test_bins_stand_beside_numbers(prepare):
    out = prepare(TABLE, bins=4)
    spec, train = FeatureSpec.load(out), ASSIGNED["train"]
    assert spec.channels["categorical"] == ("city", "zip", "tags", "age_bin", "income_bin")
    assert spec.features["age_bin"].cardinality == 5 and spec.features["age_bin"].dtype == "int8"
    found = columns_of(out, "train")
    for name in ("age", "income"):
        value = np.array([float(row[name]) if row[name] not in ("", "NA") else np.nan for row in train])
        bins, known = np.array(found[f"{name}_bin"]), ~np.isnan(value)
        assert (bins[~known] == 0).all() and (bins[known] > 0).all()
        for low, high in itertools.pairwise(range(1, 5)):
            assert value[known & (bins == low)].max() < value[known & (bins == high)].min()
        assert np.bincount(bins[known], minlength=5)[1:].min() > 0.8 * known.sum() / 4
    names = pq.read_table(out / "preparation/vocabularies/age_bin.parquet")["value"].to_pylist()
    assert names[0].startswith("18 … < ") and names[-1].endswith(" …")
    assert "age_bin" not in FeatureSpec.load(prepare(TABLE, name="none")).features


@pytest.mark.parametrize("values, counts, most, edges", [
    ([0, 1, 2, 5, 7], [6, 1, 1, 1, 1], 3, [0, 1, 5]), ([3, 4], [1, 99], 32, [3, 4]), ([1], [5], 4, [1]),
    ([], [], 4, []), (range(5), [1, 1, 500, 1, 1], 4, [0, 2, 3, 4]),
    (range(100), [1] * 100, 4, [0, 25, 50, 75]), (range(100), [1] * 99 + [1000], 3, [0, 99])])
def test_edges_of_bins(values, counts, most, edges):
    found = edges_of(np.array(values, float), np.array(counts, np.int64), most)
    assert found == edges


def test_limits_by_feature_and_the_label_above_a_number(prepare):
    table = [{**row, "bought": dice} for row, dice in zip(TABLE, [0.5, 2, "", 7.5] * 100, strict=True)]
    kept = [(index, {**row, "bought": "yes" if row["bought"] > 1 else "no"}) for index, row in enumerate(table)
            if row["bought"] != ""]
    out = prepare(table, label_is=None, label_above=1, frequency_limits={"city": 3, "zip": 3, "tags": 3},
                  frequency_limit=500, features={"bought": {"dtype": "float32"}})
    same(out, expected_columns(assigned([row for _, row in kept], [index for index, _ in kept])))
    assert json.loads((out / "preparation/summary.json").read_text())["rows_without_label"] == 100


def test_rows_of_a_user_stay_together(prepare):
    out = prepare(TABLE, split_by="user")
    same(out, expected_columns(assigned(TABLE, [row["user"] for row in TABLE])))
    users = [set(columns_of(out, mapping)["user"]) for mapping in ("train", "validation", "test")]
    assert all(users) and not (users[0] & users[1] or users[0] & users[2] or users[1] & users[2])


@pytest.mark.parametrize("key", ["when", "session", "income"])
def test_the_last_rows_in_time_are_the_test_rows(prepare, key):
    """Rows of the same moment stay together, also where they are the greater part."""
    ordered = sorted(TABLE, key=lambda row: row[key])
    test, validation = ordered[320][key], ordered[280][key]
    parts = {"train": [row for row in TABLE if row[key] < validation],
             "validation": [row for row in TABLE if validation <= row[key] < test],
             "test": [row for row in TABLE if row[key] >= test]}
    shuffled = random.Random(1).sample(range(400), 400)
    parts = {mapping: sorted(part, key=lambda row: shuffled[TABLE.index(row)]) for mapping, part in parts.items()}
    table = sorted(TABLE, key=lambda row: shuffled[TABLE.index(row)])
    if not all(parts.values()):
        with pytest.raises(PrepareError, match="no rows for the mapping 'validation'"):
            prepare(table, order_by=key)
    else:
        same(prepare(table, order_by=key), expected_columns(parts))


@pytest.mark.parametrize("kind", ["semicolons without header", "parquet", "parquet lists", "two chunks", "files"])
def test_however_the_files_are_written(prepare, tmp_path, kind):
    folder, names = tmp_path / "raw", list(FEATURES)
    folder.mkdir()
    chunks = [{"type": "parquet", "files": ["rows.parquet"], "features": names}]
    if kind == "semicolons without header":
        table = [{**row, "tags": row["tags"].replace("|", ",")} for row in TABLE]
        write_csv(folder / "rows.csv.gz", table, names, header=False, delimiter=";")
        chunks = [{"type": "csv", "files": ["rows.csv.gz"], "features": names, "delimiter": ";", "list_delimiter": ","}]
    elif kind.startswith("parquet"):
        columns = {name: [row[name] for row in TABLE] for name in names}
        columns["age"] = [None if age in ("", "NA") else float(age) for age in columns["age"]]
        columns["bought"] = pa.array(columns["bought"]).dictionary_encode()
        if kind == "parquet lists":
            columns["tags"] = [tags.split("|") if tags else None for tags in columns["tags"]]
        pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=70)
    elif kind == "two chunks":
        write_csv(folder / "a.csv", TABLE, names[:4])
        write_csv(folder / "b.csv", TABLE, ["when", *reversed(names[4:])])
        chunks = [{"type": "csv", "files": ["a.csv"], "features": names[:4]},
                  {"type": "csv", "files": ["b.csv"], "features": names[4:]}]
    else:
        write_csv(folder / "a.csv", TABLE[:150])
        write_csv(folder / "b.csv", TABLE[150:250], COLUMNS[::-1])
        write_csv(folder / "c.csv", TABLE[250:])
        chunks = [{"type": "csv", "files": ["a.csv", "b.csv", "c.csv"], "features": names}]
    write_spec(folder, {"train": chunks})
    same(prepare(spec=folder), expected_columns(ASSIGNED))


def test_mappings_of_the_spec_stay_and_validation_is_cut_off_train(prepare, tmp_path):
    folder, names = tmp_path / "raw", list(FEATURES)
    folder.mkdir()
    for mapping, part in (("train", TABLE[:300]), ("test", TABLE[300:])):
        write_csv(folder / f"{mapping}.csv", part)
    write_spec(folder, {mapping: [{"type": "csv", "files": [f"{mapping}.csv"], "features": names}]
                        for mapping in ("train", "test")})
    parts = assigned(TABLE[:300], range(300), test=0.0, validation=0.1)
    same(prepare(spec=folder), expected_columns({**parts, "test": TABLE[300:]}))
    out = prepare(spec=folder, validation_share=0, name="two")
    assert list(FeatureSpec.load(out).mappings) == ["train", "test"]
    same(out, expected_columns({"train": TABLE[:300], "test": TABLE[300:]}))


def every_byte(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.bin"))}


def test_the_bytes_depend_on_the_seed_but_not_on_threads_or_memory(prepare):
    options = {"shuffle": True, "hash_buckets": {"city": 5}}
    one = every_byte(prepare(rows(3000), **options, name="one"))
    for number, engine in enumerate(({"threads": 3, "tables": "memory"}, {"threads": 2, "tables": "disk"})):
        assert every_byte(prepare(rows(3000), **options, name=f"other{number}", engine=engine)) == one
    assert every_byte(prepare(rows(3000), **{**options, "seed": 8}, name="seed")) != one


def test_a_second_run_does_nothing_and_another_recipe_needs_overwrite(prepare, tmp_path, capsys):
    prepare(TABLE)
    assert "already prepared" not in capsys.readouterr().err
    prepare(spec=tmp_path / "raw")
    assert "already prepared" in capsys.readouterr().err
    with pytest.raises(PrepareError, match="another recipe"):
        prepare(spec=tmp_path / "raw", seed=1)
    same(prepare(spec=tmp_path / "raw", frequency_limit=9, overwrite=True), expected_columns(ASSIGNED, limit=9))


def test_goes_on_where_it_was_stopped(prepare, tmp_path, monkeypatch, capsys):
    from clickwise.prepare.table import split

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("clickwise.prepare.table.in_engine.fit_scales", stop)
        prepare(TABLE, engine={"tables": "disk"})
    monkeypatch.setattr(split, "check_label", stop)  # the split is not made again
    same(prepare(spec=tmp_path / "raw", engine={"tables": "disk"}), expected_columns(ASSIGNED))
    assert "resuming an earlier run after: raw files read, types, split, vocabularies" in capsys.readouterr().err


@pytest.mark.parametrize("tables", ["memory", "disk"])
@pytest.mark.parametrize("swapped", [False, True])  # files of other columns are read apart
def test_the_rows_of_every_file_are_told(prepare, tmp_path, capsys, tables, swapped):
    table = [{**row, "when": f"2024-01-{1 + index // 20:02}"} for index, row in enumerate(rows(400))]
    table[350]["bought"] = ""
    write_spec(tmp_path / "raw", {"train": [{"type": "csv", "files": ["a.csv", "b.csv", "c.csv"],
                                             "features": list(FEATURES)}]})
    write_csv(tmp_path / "raw/a.csv", table[:300])
    write_csv(tmp_path / "raw/b.csv", table[300:], COLUMNS[::-1] if swapped else COLUMNS)
    write_csv(tmp_path / "raw/c.csv", [])
    out = prepare(spec=tmp_path / "raw", order_by="when", engine={"tables": tables})
    found = json.loads((out / "preparation/summary.json").read_text())["files"]["train"]
    assert found == {"a.csv": {"rows": 300, "without_label": 0, "time": ["2024-01-01 00:00:00", "2024-01-15 00:00:00"]},
                     "b.csv": {"rows": 100, "without_label": 1, "time": ["2024-01-16 00:00:00", "2024-01-20 00:00:00"]},
                     "c.csv": {"rows": 0, "without_label": 0}}
    assert "train: rows of a.csv 300 (2024-01-01 00:00:00 … 2024-01-15 00:00:00), b.csv 100" in capsys.readouterr().err


@pytest.mark.parametrize("last", ["\n", ""])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_line_ends_inside_quotes_are_told(prepare, capsys, tmp_path, count, last):
    write_spec(tmp_path / "raw", {"train": [{"type": "csv", "files": ["rows.csv"], "header": True,
                                             "features": list(FEATURES)}]})
    write_csv(tmp_path / "raw/rows.csv", [{**row, "city": 'Os\nlo' if index < count else 'a "b"'}
                                          for index, row in enumerate(TABLE)])
    text = (tmp_path / "raw/rows.csv").read_text()
    (tmp_path / "raw/rows.csv").write_text(text.removesuffix("\n") + last)
    prepare(spec=tmp_path / "raw")
    assert (f"train: {count} rows have fields with line ends inside quotes" in (said := capsys.readouterr().err)) == \
        bool(count) == ("line ends inside" in said)


@pytest.mark.slow
def test_thousands_of_text_columns_are_prepared(prepare, tmp_path):
    names = [f"text_{index}" for index in range(1200)]
    rows = [{"bought": index % 2, **{name: f'"{index % 3}' for name in names}} for index in range(40)]
    write_csv(tmp_path / "wide.csv", rows, ["bought", *names])
    infer([tmp_path / "wide.csv"], label="bought").save(tmp_path / "raw")
    prepared = FeatureSpec.load(prepare(spec=tmp_path / "raw", label_is=None, log_numericals=None))
    assert len(prepared.channels["categorical"]) == 1200


@pytest.mark.parametrize("tables", ["memory", "disk"])
def test_missing_values_are_told(prepare, capsys, tables):
    table = [{**row, "age": "" if index % 4 == 0 else 5, "zip": "" if index >= 300 else 7, "tags": "a" if index % 2
              else "|"} for index, row in enumerate(rows(400))]
    table = [{**row, "when": index} for index, row in enumerate(table)]
    out = prepare(table, order_by="when", validation_share=0, test_share=0.25, engine={"tables": tables})
    found = json.loads((out / "preparation/summary.json").read_text())["missing"]
    assert found["train"]["age"] == found["test"]["age"] == 0.25 and found["train"]["tags"] == 0.5
    assert "zip" not in found["train"] and found["test"]["zip"] == 1 and "bought" not in found["train"]
    said = capsys.readouterr().err
    assert "train: missing numbers, which become the mean: age 25 %" in said
    assert "warning: test: 'zip' is missing in 100 % of the rows, in train in 0 %" in said


def test_a_label_of_several_values(prepare):
    table = [{**row, "bought": row["bought"] if index % 3 else " maybe"} for index, row in enumerate(TABLE)]
    one = prepare([{**row, "bought": row["bought"].replace(" maybe", "yes")} for row in table], name="one")
    assert every_byte(prepare(table, label_is=["yes", "maybe "])) == every_byte(one)
    with pytest.raises(PrepareError, match="'sometimes', which 'bought' never is"):
        prepare(table, label_is=["yes", "sometimes"], name="never")


@pytest.mark.parametrize("tables", ["memory", "disk"])
@pytest.mark.parametrize(("when", "first", "last"), [
    (lambda index: f"2024-01-{1 + index // 20:02} 10:00:00", "2024-01-01 10:00:00", "2024-01-20 10:00:00"),
    (lambda index: 1704103200 + index // 20, "1704103200 (2024-01-01 10:00:00)", "1704103219 (2024-01-01 10:00:19)"),
    (lambda index: index // 20 / 2, "0", "9.5"),
])
def test_the_moments_of_every_mapping_are_told(prepare, capsys, tables, when, first, last):
    table = [{**row, "when": when(index)} for index, row in enumerate(rows(400))]
    out = prepare(table, order_by="when", engine={"tables": tables})
    found = json.loads((out / "preparation/summary.json").read_text())["time"]
    assert list(found) == ["train", "validation", "test"] and found["train"][0] == first and found["test"][1] == last
    assert found["train"][1] < found["validation"][0] < found["test"][0] or "." in last
    assert f"train {first} … {found['train'][1]}; validation" in capsys.readouterr().err


def test_ragged_lines_are_refused_or_skipped_and_counted(prepare, tmp_path):
    write_spec(tmp_path / "raw", {"train": [{"type": "csv", "files": ["rows.csv"], "features": list(FEATURES)}]})
    write_csv(tmp_path / "raw/rows.csv", TABLE)
    with open(tmp_path / "raw/rows.csv", "a") as file:
        file.write("yes,30,1\n")
    with pytest.raises(PrepareError, match="rows.csv, line 402\n  found    3 fields"):
        prepare(spec=tmp_path / "raw")
    assert not (tmp_path / "out").exists()
    out = prepare(spec=tmp_path / "raw", max_bad_rows=1)
    same(out, expected_columns(ASSIGNED))
    assert [*json.loads((out / "preparation/summary.json").read_text())["bad_rows_skipped"].values()] == [1]


def with_(**changes):
    return [{**TABLE[0], **changes}, *TABLE[1:]]


@pytest.mark.parametrize(("options", "words"), [
    ({"spec": ""}, ["dataset.spec", "clickwise spec infer FILE"]),
    ({"spec": "nowhere"}, ["nowhere", "no such file or folder"]),
    ({"label_is": None}, ["dataset.label_is", "'no'", "'yes'", "dataset.label_is=VALUE"]),
    ({"label_is": "Yes"}, ["dataset.label_is", "'Yes'", "'yes' ("]),
    ({"label_is": None, "label_above": 3}, ["column 'bought', row 0", "expected a finite number"]),
    ({"label_above": 3}, ["label_above", "not both"]),
    ({"frequency_limits": {"cty": 3}}, ["dataset.frequency_limits", "'cty'", "did you mean 'city'?"]),
    ({"log_numericals": ["city"]}, ["dataset.log_numericals", "'city'", "age, income"]),
    ({"hash_buckets": {"citty": 3}}, ["dataset.hash_buckets", "did you mean 'city'?"]),
    ({"hash_buckets": {"city": 0}}, ["dataset.hash_buckets.city", "found    0", "at least 1"]),
    ({"hash_buckets": {"city": 9}, "frequency_limit": 1}, ["dataset.hash_buckets.city", "frequency limit 1"]),
    ({"hash_only": ["city"]}, ["dataset.hash_only", "'city'", "features of hash_buckets"]),
    ({"test_share": 0.6, "validation_share": 0.5}, ["dataset.validation_share", "less than 0.4"]),
    ({"test_share": -0.1}, ["dataset.test_share", "at least 0"]),
    ({"split_by": "user", "order_by": "when"}, ["dataset.order_by", "not both"]),
    ({"split_by": "usr"}, ["no column 'usr'", "did you mean 'user'?"]),
    ({"order_by": "when", "test_share": 0.99, "validation_share": 0}, ["no rows for the mapping 'train'"]),
    ({"order_by": "user"}, ["order_by", "'u0' in 'user'", "YYYY-MM-DD"]),
    ({"table": with_(age="old")}, ["column 'age', row 0", "found    'old'", "dataset.missing"]),
    ({"table": with_(income="inf")}, ["column 'income', row 0", "'inf'", "finite"]),
    ({"table": with_(session="x1")}, ["column 'session', row 0", "'x1'"]),
    ({"table": with_(tags="a|b|c|d|e")}, ["column 'tags', row 0", "'a|b|c|d|e'", "at most 4 values (max_hotness)"]),
    ({"table": with_(bought="")[:1]}, ["dataset.label_is", "no value at all"]),
    ({"table": [row for row in TABLE if row["bought"] == "yes"]}, ["labels of both kinds"]),
    ({"table": []}, ["no rows", "at least one"]),
    ({"order_by": "age"}, ["dataset.order_by", "rows without 'age'"]),
    ({"channels": {**CHANNELS, "history": ["note"]}}, ["channel_spec.history"]),
])
def test_one_message_for_a_mistake(prepare, tmp_path, options, words):
    if "history" in options.get("channels", {}):
        options = {**options, "channels": {name: names for name, names in options["channels"].items()
                                           if name != "left_out"},
                   "features": {"note": {"dtype": "str", "cardinality": "auto", "max_hotness": 3}}}
    with pytest.raises(ClickwiseError) as error:
        prepare(**{"table": TABLE, **options})
    for word in words:
        assert word in str(error.value), str(error.value)
    assert not (tmp_path / "out").exists() and not [*tmp_path.glob(".out*")]


@pytest.mark.parametrize(("change", "words"), [
    (lambda folder: write_csv(folder / "rows.csv", TABLE, COLUMNS[1:]),
     ["rows.csv", "no column 'bought'"]),
    (lambda folder: write_csv(folder / "rows.csv", TABLE, [*COLUMNS, "age"]), ["two columns named 'age'"]),
    (lambda folder: (folder / "rows.csv").unlink(), ["rows.csv", "no such file"]),
    (lambda folder: (folder / "rows.csv").write_bytes(b"\xff\xfe\x00"), ["rows.csv, line 1", "no text"]),
    (lambda folder: (folder / "rows.csv").write_text(""), ["rows.csv", "an empty file"]),
    (lambda folder: (folder / "rows.csv.gz").write_bytes(b"\x1f\x8bnothing of the kind")
     and write_spec(folder, {"train": [{"type": "csv", "files": ["rows.csv.gz"], "features": list(FEATURES)}]}),
     ["rows.csv.gz, line 1", "no text"]),
    (lambda folder: write_spec(folder, {"train": [{"type": "parquet", "files": ["rows.csv"],
                                                   "features": list(FEATURES)}]}), ["rows.csv", "no Parquet file"]),
    (lambda folder: write_spec(folder, {"other": [{"type": "csv", "files": ["rows.csv"],
                                                   "features": list(FEATURES)}]}), ["source_spec", "`train`"]),
], ids=["column missing", "name twice", "file missing", "no text", "empty", "no gzip", "no Parquet", "no train"])
def test_one_message_for_files_that_do_not_fit(prepare, tmp_path, change, words):
    folder = tmp_path / "raw"
    write_spec(folder, {"train": [{"type": "csv", "files": ["rows.csv"], "header": True, "features": list(FEATURES)}]})
    write_csv(folder / "rows.csv", TABLE)
    change(folder)
    with pytest.raises(ClickwiseError) as error:
        prepare(spec=folder)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["row", "City"])
def test_names_that_preparation_cannot_tell_apart(prepare, tmp_path, name):
    features = {**FEATURES, name: {"dtype": "float32"}}
    write_spec(tmp_path / "raw", {"train": [{"type": "csv", "files": ["rows.csv"], "features": list(features)}]},
               features, {**CHANNELS, "numerical": ["age", "income", name]})
    with pytest.raises(PrepareError, match=name):
        prepare(spec=tmp_path / "raw")


def test_a_recipe_names_only_what_there_is(prepare):
    with pytest.raises(RecipeError, match="did you mean 'order_by'"):
        prepare(TABLE, orderby="when")


def test_a_heavy_tail_gets_a_logarithm_where_nobody_says_otherwise(prepare):
    dice = random.Random(1)
    table = [{**row, "income": math.exp(dice.gauss(0, 3)), "age": dice.gauss(40, 5)} for row in TABLE]
    encoding = {name: json.loads((prepare(table, name=name, log_numericals=logs) / "preparation/encoding.json")
                                 .read_text())["columns"] for name, logs in (("auto", None), ("none", []))}
    steps = {name: [step["do"] for step in columns["income"]["steps"]] for name, columns in encoding.items()}
    assert steps == {"auto": ["signed_log", "standardize"], "none": ["standardize"]}
    assert [step["do"] for step in encoding["auto"]["age"]["steps"]] == ["standardize"]


def test_the_frequency_limit_follows_the_number_of_rows():
    config = TableConfig(spec="x", frequency_limits={"b": 7})
    assert [config.limit_among("a", rows) for rows in (100, 19_999, 20_000)] == [2, 2, 5]
    assert config.limit_among("b", 100) == 7 and TableConfig(spec="x", frequency_limit=3).limit_among("a", 100) == 3


def test_a_split_by_time_never_goes_by_letters(prepare):
    table = [{**row, "when": f"{index % 12 + 1}/{index % 28 + 1}/2024"} for index, row in enumerate(TABLE)]
    with pytest.raises(PrepareError, match="order_by\n.*'1/1/2024' in 'when'\n.*YYYY-MM-DD"):
        prepare(table, order_by="when")
