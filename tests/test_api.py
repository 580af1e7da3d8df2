"""clickwise from Python: a frame in, a model out, and the same bits as the command line."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import clickwise as cw
from clickwise.errors import ClickwiseError
from clickwise.feature_spec import FeatureSpec
from clickwise.tables import as_table

SETTINGS = {"train.epochs": 1, "train.batch_size": 64, "model.cross_rank": 4, "model.bottom_mlp": [8],
            "model.top_mlp": [8]}


def frame(rows=600, seed=0):
    dice = random.Random(seed)
    made = [{"age": dice.choice([None, *range(18, 60)]), "town": dice.choice(["Oslo", "Bonn", None, "São Paulo"]),
             "shop": dice.choice([1005000, 7, 8]), "member": dice.choice([True, False]),
             "tags": "|".join(dice.choices("abc", k=dice.randrange(3))), "row_id": f"r{index}",
             "when": pd.Timestamp("2024-01-01", tz="Europe/Oslo") + pd.Timedelta(minutes=index)}
            for index in range(rows)]
    data = pd.DataFrame(made)
    data["click"] = [int(dice.random() < (0.8 if town == "Oslo" else 0.2)) for town in data.town]
    return data.set_index(pd.Index(range(5, rows + 5), name="index"))


@pytest.fixture(scope="module")
def model():
    return cw.fit(frame(), label="click", multi_hot={"tags": "|"}, ignore=["row_id"], settings=SETTINGS, seed=3)


def test_a_frame_in_probabilities_out(model):
    data = frame(50, 1)
    probability = model.predict_proba(data)
    assert probability.dtype == np.float64 and probability.shape == (50,)
    np.testing.assert_array_equal(model.predict_proba(pa.Table.from_pandas(data)), probability)
    unlabelled = data.drop(columns="click").reset_index()
    np.testing.assert_array_equal(model.predict_proba(unlabelled[unlabelled.columns[::-1]]), probability)
    np.testing.assert_allclose(model.predict_proba(unlabelled[::-1])[::-1], probability, atol=1e-6)
    np.testing.assert_allclose([model.predict_proba(data[i:i + 1])[0] for i in range(50)], probability, atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-model.predict_logit(data).astype(float))), probability)
    assert model.predict_proba(data[:0]).shape == (0,)


def test_it_measures_and_says_what_it_is(model):
    measured = model.evaluate(frame(300, 2))
    assert measured["rows"] == 300 and measured["auc"] > 0.55
    assert "dcnv2" in repr(model) and f"{model.metrics['validation']['auc']:.4f}" in repr(model)
    assert repr(model._session) == "<Session: dcnv2 on columns, fp32 on cpu>"
    assert "<iframe" in model._repr_html_() and "<svg" in model._repr_html_().replace("&lt;", "<")


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    data = frame(50, 1)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(cw.load(tmp_path / "m").predict_proba(data), model.predict_proba(data))
    with pytest.raises(ClickwiseError, match="things in it"):
        model.save(tmp_path / "m")


def test_a_copy_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def full(source, target, **others):
        (Path(target) / "recipe.yaml").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_nothing_stays_and_nothing_is_printed_where_no_folder_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    fitted = cw.fit(frame(200), label="click", settings=SETTINGS)
    folder = fitted.folder
    assert folder.exists() and not list(tmp_path.iterdir()) and capfd.readouterr().out == ""
    del fitted
    assert not folder.exists()


def test_python_and_the_command_line_give_the_same_bits(clickwise, tmp_path):
    data = frame(400).drop(columns=["when", "row_id", "tags"])
    data.to_csv(tmp_path / "rows.csv", index=False)
    data.to_csv(tmp_path / "new.csv", index=False)
    by_path = cw.fit(tmp_path / "rows.csv", label="click", test=0.2, settings=SETTINGS, out=tmp_path / "kept")
    by_frame = cw.fit(data, label="click", test=0.2, settings=SETTINGS)
    clickwise("spec", "infer", "rows.csv", "--label", "click", "--out", "spec")
    clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns")
    words = [f"{key}={json.dumps(value)}" for key, value in SETTINGS.items()]
    run = json.loads(clickwise("train", "table/dcnv2", "data.path=columns", *words, "--json").out)["run"]
    found = cw.load(run)
    for other in (by_path, by_frame):
        np.testing.assert_array_equal(other.predict_proba(tmp_path / "new.csv"), found.predict_proba(data))
    assert by_path.metrics["test"]["auc"] == found.metrics["test"]["auc"]
    assert (tmp_path / "kept/spec/feature_spec.yaml").exists()
    result = clickwise("predict", run, "--input", "new.csv", "--out", "p.csv")
    assert result.code == 0
    np.testing.assert_array_equal(pd.read_csv("p.csv", dtype="float32").logit, found.predict_logit(data))


@pytest.mark.slow
@pytest.mark.parametrize("file, infer, prepare, arguments", [
    ("adult/adult.csv.gz", ["--label", "income", "--categorical", "capital-gain"], ["dataset.label_is='>50K'"],
     {"label": "income", "positive": ">50K", "categorical": ["capital-gain"]}),
    ("nycflights13/flights.csv.gz", ["--label", "arr_delay", "--categorical", "flight"],
     ["dataset.label_above=15", "dataset.order_by=time_hour"],
     {"label": "arr_delay", "categorical": ["flight"], "time": "time_hour", "prepare_settings": {"label_above": 15}})])
def test_real_tables_have_the_auc_of_the_command_line(clickwise, file, infer, prepare, arguments):
    file = str(Path(__file__).parents[1] / "data" / file)
    clickwise("spec", "infer", file, *infer, "--out", "spec")
    clickwise("prepare", "table/prepare", "dataset.spec=spec", *prepare, "out=columns")
    found = json.loads(clickwise("train", "table/dcnv2", "data.path=columns", "train.epochs=2", "--json").out)
    for data in (file, pd.read_csv(file)):
        fitted = cw.fit(data, test=0.2, settings={"train.epochs": 2}, **arguments)
        for mapping in ("validation", "test"):
            assert fitted.metrics[mapping]["auc"] == found["mappings"][mapping]["auc"]


@pytest.mark.parametrize("change, words", [
    (lambda data: data.assign(click=1), ["labels of both kinds"]),
    (lambda data: data.assign(click="x"), ["click"]),
    (lambda data: data[:0], ["no rows"]),
    (lambda data: data.drop(columns="click"), ["click"]),
    (lambda data: pd.concat([data, data[["age"]]], axis=1), ["two columns named 'age'"]),
    (lambda data: data.assign(town=[1, "a", b"c", *[None] * (len(data) - 3)]), ["column 'town'"]),
    (lambda data: data.assign(age=[np.inf, *np.arange(99) / 7]), ["the table, column 'age', row 0", "finite"]),
    (lambda data: data.assign(click=["no", "yes"] * 50), ["positive\n", "positive=VALUE"]),
    (lambda data: data.rename(columns={"age": "a\nb"}), ["the table: feature_spec", "rename it"]),
    (lambda data: data.rename(columns={"age": "Town"}), ["upper and lower case"]),
    (lambda data: data["age"], ["a pandas or polars frame"]), (lambda data: data[:5], ["validation", "too few rows"])])
def test_one_message(change, words):
    with pytest.raises(ClickwiseError) as caught:
        cw.fit(change(frame(100)), label="click", settings=SETTINGS)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "clickwise-" not in str(caught.value) and "--" not in str(caught.value)


def test_what_a_frame_may_hold(model):
    data = frame(40, 1)
    logit = model.predict_logit(data)
    data["town"] = data["town"].astype("category")
    data["age"] = data["age"].astype("Int64")
    data["member"] = data["member"].astype("boolean")
    data["shop"] = data["shop"].astype(str)
    np.testing.assert_array_equal(model.predict_logit(data), logit)
    data["shop"] = pd.arrays.SparseArray(frame(40, 1)["shop"])
    np.testing.assert_array_equal(model.predict_logit(data), logit)


def test_polars(model):
    data = frame(40, 1)
    logit = model.predict_logit(data)
    polars_frame = pl.from_arrow(pa.Table.from_pandas(data, preserve_index=False))
    np.testing.assert_array_equal(model.predict_logit(polars_frame), logit)
    odd = polars_frame.with_columns(pl.col("town").cast(pl.Categorical), pl.col("tags").str.split("|"),
                                    pl.col("age").cast(pl.Int8), pl.col("shop").cast(pl.String))
    np.testing.assert_array_equal(model.predict_logit(odd), logit)
    fitted = cw.fit(pl.from_pandas(frame(200).drop(columns="row_id")).with_columns(pl.col("town").cast(pl.Categorical)),
                    label="click", time="when", multi_hot={"tags": "|"}, settings=SETTINGS)
    assert set(fitted._encoder.needs) == {"age", "town", "shop", "member", "tags"}


def test_a_few_rows_are_encoded_as_many_are(model):
    data = as_table(frame(60, 4))
    lists = data.set_column(data.column_names.index("tags"), "tags", pc.split_pattern(data["tags"], "|"))
    encoder = model._encoder
    kinds = {"town": pa.large_string(), "shop": pa.float64(), "age": pa.float32()}
    texts = {"shop": pa.string(), "age": pa.string()}
    for table, schema in ((data, {}), (lists, {}), (lists, kinds), (lists, texts)):
        for name, type_ in schema.items():
            table = table.set_column(table.column_names.index(name), name, table[name].cast(type_))
        many = encoder.columns(table).arrays
        for first in range(0, 60, 7):
            few = encoder.arrays(table.slice(first, 7), first)
            for name, column in few.items():
                if isinstance(column, tuple):
                    ends = many[name][1][first:first + len(column[1])]
                    assert column[0].tobytes() == many[name][0][ends[0]:ends[-1]].tobytes()
                    assert (column[1] == ends - ends[0]).all() and column[0].dtype == many[name][0].dtype
                else:
                    assert column.tobytes() == many[name][first:first + 7].tobytes()


def test_it_tells_what_each_column_was_taken_for(model):
    told = model.columns
    assert {name: column["channel"] for name, column in told.items()} == {
        "age": "numerical", "town": "categorical", "shop": "categorical", "member": "categorical",
        "tags": "categorical", "when": "left_out", "click": "label"}
    assert told["age"]["check"] and not told["town"]["check"] and "3 values" in told["town"]["why"]
    assert told["town"]["ids"] == 4 and 0.1 < told["town"]["without_an_id"]["validation"] < 0.5
    report = (model.folder / "report.html").read_text(encoding="utf-8")
    assert "Please check" in report and told["when"]["why"] in report
    corrected = cw.fit(frame(200), label="click", categorical=["age"], ignore=["row_id"], settings=SETTINGS)
    assert corrected.columns["age"]["why"].startswith("as asked") and not corrected.columns["age"]["check"]


def test_categories_and_views_of_arrow(model):
    data = frame(40, 1)
    table = pa.Table.from_pandas(data, preserve_index=False)
    town = pa.array(table["town"].to_pylist()).dictionary_encode()
    of_views = pa.DictionaryArray.from_arrays(town.indices, town.dictionary.cast(pa.string_view()))
    at = table.column_names.index("town")
    logit = model.predict_logit(data)
    for column in (town, of_views, table["town"].cast(pa.string_view()), table["town"].cast(pa.large_string())):
        changed = table.set_column(at, "town", column)
        np.testing.assert_array_equal(model.predict_logit(changed), logit)
        assert as_table(changed)["town"].to_pylist() == table["town"].to_pylist()


def test_a_column_that_is_missing_or_cannot_be_read(model):
    with pytest.raises(ClickwiseError, match="no column 'age'"):
        model.predict_proba(frame(5).drop(columns="age"))
    with pytest.raises(ClickwiseError, match="column 'age', row 2"):
        model.predict_proba(frame(5).assign(age=["1", "2", "x", "4", ""]))
    with pytest.raises(ClickwiseError, match="did you mean 'table/dcnv2'"):
        cw.fit(frame(50), label="click", model="dcnv3")


def test_what_is_interrupted_leaves_the_model_of_its_best_checkpoint(monkeypatch):
    from clickwise.train.step import TrainStep

    step, taken = TrainStep.__call__, []

    def interrupted(self, *batches):
        taken.append(1)
        if len(taken) == 25:
            raise KeyboardInterrupt
        return step(self, *batches)

    monkeypatch.setattr(TrainStep, "__call__", interrupted)
    settings = SETTINGS | {"train.batch_size": 32, "train.epochs": 9, "train.evaluate_every": 5}
    fitted = cw.fit(frame(400), label="click", settings=settings)
    assert 0 < fitted.step < 25 and fitted.metrics == {} and fitted.predict_proba(frame(5)).shape == (5,)
    assert "step" in repr(fitted) and "<pre>" in fitted._repr_html_()
    taken.clear()
    with pytest.raises(ClickwiseError, match="interrupted"):
        cw.fit(frame(400), label="click", settings=settings | {"train.evaluate_every": None, "train.batch_size": 2})


def test_the_index_of_a_frame_is_no_feature(tmp_path):
    from clickwise.prepare.infer import infer

    data = frame(100)
    data.index = pd.Index([f"i{index}" for index in range(100)])
    data.to_parquet(tmp_path / "rows.parquet")
    draft = infer([tmp_path / "rows.parquet"], label="click")
    assert draft.guesses["__index_level_0__"].channel == "" and "index" in draft.guesses["__index_level_0__"].why
    fitted = cw.fit(tmp_path / "rows.parquet", label="click", settings=SETTINGS)
    assert "__index_level_0__" not in fitted._encoder.needs
    fitted = cw.fit(tmp_path / "rows.parquet", label="click", ignore=["town"], settings=SETTINGS)
    assert fitted.columns["town"]["channel"] == "left_out" and fitted.columns["town"]["why"] == "as asked"
    with pytest.raises(ClickwiseError, match="ignore twn"):
        cw.fit(tmp_path / "rows.parquet", label="click", ignore=["twn"])
    with pytest.raises(ClickwiseError, match="^multi_hot tgs"):
        cw.fit(tmp_path / "rows.parquet", label="click", multi_hot={"tgs": "|"})


def test_lists_in_texts_of_a_frame_and_of_a_file(tmp_path):
    data = frame(300).drop(columns=["when", "row_id"])
    data["tags"] = [tags.replace("|", " - ") for tags in data.tags]
    by_frame = cw.fit(data, label="click", multi_hot={"tags": " - "}, settings=SETTINGS)
    assert by_frame.columns["tags"]["why"].startswith("as asked: lists of text, 3 values")
    lists = data.assign(tags=[tags.split(" - ") for tags in data.tags])
    np.testing.assert_array_equal(by_frame.predict_proba(lists), by_frame.predict_proba(data))
    assert by_frame.columns["tags"]["ids"] == 4
    data.to_csv(tmp_path / "rows.csv", index=False)
    data.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    for name in ("rows.csv", "rows.jsonl"):
        by_path = cw.fit(tmp_path / name, label="click", multi_hot={"tags": " - "}, settings=SETTINGS)
        np.testing.assert_array_equal(by_path.predict_proba(tmp_path / name), by_frame.predict_proba(data))


def test_a_model_in_memory_learns_from_batches_of_ones_own():
    import torch

    torch.manual_seed(0)
    spec = cw.FeatureSpec.of(numerical=["age"], cardinalities={"town": 3, "shop": 50})
    model, step = cw.build("dlrm", spec, {"model.embedding_dim": 4, "model.bottom_mlp": [4], "model.top_mlp": [8],
                                          "optimizer": {"name": "adam", "lr": 0.01}, "train.device": "cpu"})
    town = torch.randint(0, 3, (256,), dtype=torch.int8)
    batch = cw.Batch(numerical=torch.rand(256, 1), categorical=(town, torch.randint(0, 50, (256,), dtype=torch.int8)),
                     label=town == 1)
    losses = [float(sum(step(batch).values())) for _ in range(300)]
    assert losses[-1] < 0.7 * losses[0] and model(batch).shape == (256,)
    assert repr(spec) == "<FeatureSpec feature_spec.yaml: numerical 1, categorical 2, label 1; mappings none>"


def test_metrics_of_arrays():
    label, score = np.array([0, 1, 1, 0]), np.array([-1.0, 2.0, -0.5, -2.0])
    assert cw.measure(label, score, metrics=["auc"])["auc"] == 1.0
    assert cw.measure(label, score, np.array([1, 1, 2, 2]), metrics=["gauc"])["gauc"] == 1.0


@pytest.mark.parametrize("wrong, words", [
    ({"categorical": "age"}, "categorical=['age']"), ({"ignore": "age"}, "a list of names"),
    ({"multi_hot": ["tags"]}, 'multi_hot={"tags": "|"}'), ({"formats": "when"}, 'formats={"created": "%d/%m/%Y"}'),
    ({"formats": {"town": "%d/%m/%Y"}}, "formats town"), ({"formats": {"town": "%d"}}, "formats town")])
def test_names_are_lists(wrong, words):
    with pytest.raises(ClickwiseError) as caught:
        cw.fit(frame(50), label="click", **wrong)
    assert words in str(caught.value)


def test_rows_as_dicts_may_leave_values_out(model):
    rows = [{"age": 30, "shop": 7}, {"town": "Oslo", "member": True, "tags": ["a"], "age": None, "shop": 8}]
    assert as_table(rows).column_names == ["age", "shop", "town", "member", "tags"]
    assert model.predict_proba(rows).shape == (2,)


def test_names_of_columns_that_no_file_may_have(tmp_path):
    data = frame(300).drop(columns=["when", "row_id"])
    long = "t" * 300
    odd = {"town": "town/city", "shop": "../shop", "tags": long, "member": " member \\ of.it", "age": "age (years)"}
    columns = {}
    for out, table in (("plain", data), ("odd", data.rename(columns=odd))):
        shop = "shop" if out == "plain" else "../shop"
        fitted = cw.fit(table, label="click", categorical=[shop], settings=SETTINGS, out=tmp_path / out)
        assert fitted.predict_proba(table[:9]).shape == (9,)
        folder = tmp_path / out / "columns"
        columns[out] = [(folder / file).read_bytes() for chunk in FeatureSpec.load(folder).mappings["train"]
                        for file in chunk.files]
    assert columns["odd"] == columns["plain"] and len(columns["odd"]) >= 7
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "odd"}
    names = {path.stem for path in (tmp_path / "odd/columns/preparation/vocabularies").iterdir()}
    digest = hashlib.md5(long.encode()).hexdigest()
    assert {"town%2Fcity", "..%2Fshop", " member %5C of.it", f"{long[:40]}~{digest}"} < names


def test_the_path_of_json_lines(model, tmp_path):
    data = frame(40, 4)
    data.to_json(tmp_path / "rows.jsonl", orient="records", lines=True, date_format="iso")
    np.testing.assert_array_equal(model.predict_proba(tmp_path / "rows.jsonl"), model.predict_proba(data))


def test_time_orders_the_split(tmp_path):
    fitted = cw.fit(frame(400), label="click", time="when", validation=0.25, settings=SETTINGS)
    assert fitted.metrics["validation"]["rows"] == 100
