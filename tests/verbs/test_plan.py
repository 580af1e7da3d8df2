"""`clickwise plan`: what many processes take, of machines and data that are not here."""

from __future__ import annotations

import dataclasses
import json
import textwrap

import numpy as np
import pytest

from clickwise.data.dataset import Dataset
from clickwise.data.synthetic.generate import VARIANTS
from clickwise.data.synthetic.power_law import power_law
from clickwise.embedding.placement import Sharding, places
from clickwise.embedding.plan import Bytes, place_tables, reason, sent
from clickwise.embedding.sharded import ShardedEmbeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.embedding.tables import table_bytes
from clickwise.recipe import load
from clickwise.training_recipe import load_recipe
from clickwise.wiring import build_model, find_device

T3 = ["--cardinalities", "criteo_t3"]


@pytest.fixture
def plan(clickwise):
    """The plan of some words, as --json gives it."""
    def planned(*words, code=0):
        result = clickwise("plan", *words, "--json")
        assert result.code == code, result.err
        return json.loads(result.out)

    return planned


def refused(result, *words, code=2):
    assert result.code == code and "Traceback" not in result.err and not result.out, result.err
    assert result.err.startswith("clickwise: ")
    for word in words:
        assert word in result.err, result.err


# ----------------------------------------------------------------------------------------- where tables lie, and bytes

@pytest.mark.parametrize("by", ["rows", "tables"])
@pytest.mark.parametrize("processes", [3, 8])
def test_rows_and_bytes_of_all_processes_are_those_of_the_tables(plan, by, processes):
    found = plan("criteo/dcnv2_large", "--gpus", processes, *T3, f"embedding.sharding.by={by}")
    tables = [Table(name=table["table"], rows=table["rows"], dim=table["dim"], features=tuple(table["features"]))
              for table in found["tables"]]
    lie = places(tables, Sharding(by=by), processes, lambda table: table.rows * table.dim * 12)
    assert [(table["lies"], table["process"]) for table in found["tables"]] == \
        [(place.kind, place.owner if place.kind == "whole" else None) for place in lie.values()]
    assert {table["lies"] for table in found["tables"]} == {"copied", {"rows": "dealt", "tables": "whole"}[by]}
    for key, values in (("rows_bytes", 128 * 4), ("optimizer_bytes", 128 * 8)):
        once = sum(table["rows"] * values * (processes if table["lies"] == "copied" else 1)
                   for table in found["tables"])
        assert sum(process[key] for process in found["per_process"]) == once
    assert found["largest_bytes"] == max(each["bytes"] for each in found["per_process"])
    assert (found["balance"] < 1.001) == (by == "rows")


def test_every_row_lies_on_one_process_or_on_all():
    tables = [Table(name=name, rows=rows, dim=4, features=(name,)) for name, rows in (("a", 3), ("b", 11), ("c", 12))]
    for by in ("rows", "tables"):
        for processes in (1, 2, 5):
            placed = place_tables(tables, Sharding(by=by, copied_rows=3), processes, lambda table: Bytes(table.rows, 0))
            held = [[each.rows_at(process) for process in range(processes)] for each in placed]
            assert held[0] == [3] * processes and [sum(of) for of in held[1:]] == [11, 12]
            if by == "rows" and processes > 1:
                of_all = [sum(of) for of in zip(*held[1:], strict=True)]
                assert max(of_all) - min(of_all) <= 1
            assert all(reason(each.place, Sharding(by=by), processes) for each in placed)


@pytest.mark.parametrize("by", ["rows", "tables"])
@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_a_process_holds_what_its_engine_allocates(monkeypatch, by, name):
    tables = [Table(name=name, rows=rows, dim=dim, features=(name,), trainable=name != "b")
              for name, rows, dim in (("a", 5, 4), ("b", 11, 4), ("c", 12, 4), ("d", 2, 4), ("e", 9, 8), ("f", 7, 4))]
    optimizer, sharding = TableOptimizer(name=name), Sharding(by=by, copied_rows=3)

    def bytes_of(table):
        rows = table_bytes(dataclasses.replace(table, trainable=False), optimizer, "bfloat16")
        return Bytes(rows, table_bytes(table, optimizer, "bfloat16") - rows)

    placed = place_tables(tables, sharding, 3, bytes_of)
    monkeypatch.setattr("clickwise.processes.count", lambda: 3)
    for process in range(3):
        monkeypatch.setattr("clickwise.processes.rank", lambda process=process: process)
        engine = ShardedEmbeddings(tables, [table.name for table in tables], optimizer, sharding=sharding,
                                   table_dtype="bfloat16")
        assert [each.rows_at(process) for each in placed] == [len(engine.held_rows(table.name)) for table in tables]
        assert sum(each.bytes_at(process).total for each in placed) == sum(
            buffer.nbytes for buffer in engine.buffers())


def test_parts_of_a_model_place_their_tables_each_for_itself():
    tables = [Table(name="t", rows=9, dim=dim, features=("t",), part=part) for part, dim in (("deep", 8), ("wide", 1))]
    placed = place_tables(tables, Sharding(by="tables", copied_rows=0), 2, lambda table: Bytes(table.dim, 0))
    assert [each.place.owner for each in placed] == [0, 0]


@pytest.mark.parametrize("words", [
    ["tiny/dlrm"], ["tiny/wide_deep", "embedding.table_dtype=bfloat16"], ["tiny/din", "freeze=[embeddings.item]"]])
def test_one_process_takes_what_its_model_takes(plan, words):
    found = plan(*words, "--processes", 1)
    recipe = load_recipe(words[0], words[1:])
    model = build_model(recipe, Dataset(recipe.data).spec, find_device("cpu"))
    (process,) = found["per_process"]
    assert process["rows_bytes"] + process["optimizer_bytes"] == sum(buffer.nbytes for buffer in model.buffers())
    assert found["dense"]["parameters"] == sum(parameter.nbytes for parameter in model.parameters())
    assert process["bytes"] == process["rows_bytes"] + process["optimizer_bytes"] + found["dense"]["total"]
    assert found["exchange"] == [] and not found["gpus"]


def test_published_sizes(plan):
    found = plan("criteo/dlrm_large", "--gpus", 1, *T3)
    assert sum(table["rows"] for table in found["tables"]) == 177_944_291
    assert found["per_process"][0]["rows_bytes"] == 22_776_869_248 * 4
    dense = plan("criteo/dcnv2_large", "--gpus", 8, *T3)["dense"]
    assert dense["parameters"] == dense["gradients"] == dense["optimizer"] / 2 == 16_044_545 * 4
    half = plan("criteo/dlrm_large", "--gpus", 1, *T3, "embedding.table_dtype=bfloat16")
    assert half["per_process"][0]["rows_bytes"] == 22_776_869_248 * 2


# -------------------------------------------------------------------------------------------- what is sent in a step

def test_bytes_of_a_step_by_hand():
    tables = [Table(name="dealt", rows=40, dim=4, features=("dealt",)),
              Table(name="frozen", rows=40, dim=2, features=("frozen",), trainable=False),
              Table(name="copied", rows=3, dim=4, features=("copied",))]
    placed = place_tables(tables, Sharding(copied_rows=3), 4, lambda table: Bytes(0, 0))
    different = {table.path: 20.0 for table in tables}
    found = sent(placed, different, 0, 4, table_dtype="float32", wire="bfloat16", dense_values=1000)
    asked = 20 * 3 / 4  # of three other processes, which ask for as many here
    assert dataclasses.asdict(found) == {"ids": 2 * asked * 4, "rows": asked * (4 + 2) * 2, "gradients": asked * 4 * 2,
                                         "copied": 1.5 * 3 * 5 * 4, "dense": 1.5 * 1000 * 4}
    assert found.total == sum(dataclasses.astuple(found))


def test_who_holds_a_whole_table_is_asked_for_it_and_asks_nobody():
    tables = [Table(name=name, rows=40, dim=4, features=(name,)) for name in ("a", "b")]
    placed = place_tables(tables, Sharding(by="tables", copied_rows=0), 2, lambda table: Bytes(1, 0))
    found = [sent(placed, {"embeddings.a": 10.0, "embeddings.b": 4.0}, process, 2, table_dtype="bfloat16",
                  wire="float32", dense_values=0) for process in range(2)]
    assert [(each.ids, each.rows, each.gradients) for each in found] == [(16, 80, 64), (40, 32, 160)]


def test_all_ids_differ_or_follow_the_power_law_of_the_published_data(plan):
    most, law = plan("criteo/dlrm_large", "--gpus", 2, "--cardinalities", "criteo_t15")["exchange"]
    assert most["different"] == sum(min(rows, 32_768) for rows in VARIANTS["criteo_t15"])
    assert law["different"] == pytest.approx(0.0377 * 32_768 * 26, rel=1e-3)  # as published of batches of 32,768
    uniform = plan("criteo/dlrm_large", "--gpus", 2, *T3, "--alpha", 0, "--bandwidth", "100GB")["exchange"][1]
    assert law["bytes"] < uniform["bytes"] <= most["bytes"] and uniform["assumption"] == "a power law, alpha 0"
    assert uniform["seconds"] == uniform["bytes"] / 1e11 and law["seconds"] is None


@pytest.mark.parametrize("size", [1, 7, 100_000, 300_000])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.45])
def test_different_ids_of_a_power_law(size, alpha):
    law = power_law(size, alpha)
    with np.errstate(divide="ignore"):
        exact = -np.expm1(5000 * np.log1p(-law.probability(np.arange(size)))).sum()
    assert law.different(5000) == pytest.approx(exact, rel=1e-6) and law.different(0) == 0


def test_ids_are_counted_where_the_data_is_here(clickwise, plan, tmp_path):
    (tmp_path / "spec.yaml").write_text(textwrap.dedent("""
        feature_spec:
          number: {dtype: float16}
          rare: {dtype: int32, cardinality: 5000}
          bag: {dtype: int32, cardinality: 400, max_hotness: 3}
          label: {dtype: bool}
        source_spec: {}
        channel_spec: {numerical: [number], categorical: [rare, bag], label: [label]}
        """))
    assert clickwise("synth", "spec.yaml", "--out", "ds", "--rows", 20_000, "--alpha", 1.2).code == 0
    words = ["tiny/dlrm", "data={path: ds}", "embedding.optimizer={name: sgd}", "train.batch_size=2000"]
    most, counted = plan(*words, "--processes", 4)["exchange"]
    assert most["different"] == 500 + 400 and counted["assumption"] == "ids as often as in training"
    _, law = plan(*words, "--processes", 4, "--alpha", 1.2)["exchange"]  # which the ids do follow; bags hold 1.5
    assert counted["different"] == pytest.approx(
        power_law(5000, 1.2).different(500) + power_law(400, 1.2).different(750), rel=0.02)
    assert law["different"] > counted["different"]
    hashed = plan(*words, "--processes", 4, "embedding.hash_indices=true", "embedding.max_table_size=300")
    assert [table["rows"] for table in hashed["tables"]] == [300, 300]
    assert hashed["exchange"][1]["different"] < counted["different"]


def test_a_history_has_as_many_ids_as_its_window(plan):
    found = plan("tiny/din", "--processes", 2, "embedding.sharding.copied_rows=0")
    length = load("tiny/din")["data"]["synthetic"]["history_length"]
    samples = found["samples_per_process"]
    assert all(table["different"]["all ids differ"] == min(table["rows"], samples * (1 + length))
               for table in found["tables"])


# ----------------------------------------------------------------------------------------------------- does it fit

def test_fits_or_what_would_help(clickwise, plan):
    words = ["criteo/dcnv2_large", *T3]
    found = plan(*words, "--gpus", 8, "--memory", "80GB")
    assert found["fits"] and found["helps"] == []
    less = plan(*words, "--gpus", 2, "--memory", "80GB", code=1)
    assert less["fits"] is False and less["largest_bytes"] > 80e9
    helps = {change["do"].partition("=")[0]: change for change in less["helps"]}
    assert set(helps) == {"--gpus 4", "embedding.table_dtype", "embedding.optimizer", "embedding.hash_indices"}
    assert helps["--gpus 4"]["bytes"] == plan(*words, "--gpus", 4)["largest_bytes"] <= 80e9
    for change in less["helps"]:
        assert change["fits"] == (change["bytes"] <= 80e9)
        if not change["do"].startswith("--"):
            settings = change["do"].replace("…", "0.1").split(" embedding.")
            settings = [settings[0], *("embedding." + setting for setting in settings[1:])]
            assert plan(*words, "--gpus", 2, *settings)["largest_bytes"] == change["bytes"]
    result = clickwise("plan", *words, "--gpus", 2, "--memory", "80GB")
    assert result.code == 1 and "does not fit: 137 GB of 80 GB" in result.out and "  --gpus 4 " in result.out


def test_where_whole_tables_lie_badly_rows_would_fit(plan):
    words = ["criteo/dlrm_large", *T3, "embedding.sharding.by=tables", "--processes", 8]
    (best, *_) = plan(*words, "--memory", "20GB", code=1)["helps"]
    assert best["do"] == "embedding.sharding.by=rows" and best["fits"]


def test_a_batch_that_does_not_fit(plan):
    found = plan("tiny/dlrm", "--processes", 2, "--memory", "4MB", "model.top_mlp=[1000]", code=1)
    assert found["dense"]["layers"] == 1024 * (32 + 8 + 1000 + 1) * 4
    assert {"train.batch_size=512", "--processes 3"} == {change["do"] for change in found["helps"] if change["fits"]}


def test_text_for_people(clickwise):
    lines = clickwise("plan", "tiny/dlrm", "--processes", 3, "--memory", "1GiB", "--bandwidth", "1GB").out.splitlines()
    assert lines[0] == ("dlrm on 3 processes, ids of data.synthetic: 10 tables of 991 rows in float32; batch 2,048, "
                        "683 samples each")
    assert lines[2].split() == ["table", "rows", "dim", "lies", "rows", "take", "optimizer", "at", "most", "in", "one"]
    assert [line.split()[3] for line in lines[3:13]] == ["dealt", *["copied"] * 9]
    assert any(line.startswith("0–1 ") for line in lines) and any(line.endswith(" ms") for line in lines)
    assert lines[-1].startswith("fits: 545 KB of 1.07 GB")
    alone = clickwise("plan", "tiny/dlrm", "--processes", 1).out
    assert "there is one process" in alone and "sent" not in alone and "fit" not in alone


# ------------------------------------------------------------------------------------------------------ bad input

@pytest.mark.parametrize(("words", "told"), [
    (["--gpus", "0"], ["--gpus", "a number from 1"]),
    (["--processes", "-2"], ["--processes", "a number from 1"]),
    ([], ["neither --gpus nor --processes"]),
    (["--gpus", "2", "--processes", "2"], ["--processes beside it"]),
    (["--gpus", "2", "--memory", "much"], ["--memory", "'much'", "80GB"]),
    (["--gpus", "2", "--memory", "0GB"], ["--memory"]),
    (["--gpus", "2", "--memory=-4GB"], ["--memory"]),
    (["--gpus", "2", "--memory", "nanGB"], ["--memory"]),
    (["--gpus", "2", "--bandwidth", "fast"], ["--bandwidth", "'fast'"]),
    (["--gpus", "2", "--alpha", "-1"], ["--alpha"]),
    (["--processes", "2049"], ["2,049 for a batch of 2,048", "train.batch_size"]),
    (["--processes", "501"], ["501 for 500 rows", "copied_rows=500"]),
    (["--gpus", "2", "embedding.sharding.by=columns"], ["embedding.sharding.by", "rows | tables"]),
    (["--gpus", "2", "embedding.sharding.copied_rows=-1"], ["embedding.sharding.copied_rows"])])
def test_what_cannot_be(clickwise, words, told):
    refused(clickwise("plan", "tiny/dlrm", *words), *told)


def test_recipes_and_data_that_cannot_be(clickwise, tmp_path):
    refused(clickwise("plan", "criteo/prepare_large", "--gpus", "8"), "a recipe for preparing data")
    refused(clickwise("plan", "criteo/dlrm_larg", "--gpus", "8"), "did you mean 'criteo/dlrm_large'")
    refused(clickwise("plan", "criteo/dlrm_large", "--gpus", "8"), "data/prepared/criteo_large",
            "--cardinalities criteo_t15, criteo_t3", code=1)
    refused(clickwise("plan", "criteo/dlrm_large", "--gpus", "8", "--cardinalities", "criteo_t4"),
            "did you mean 'criteo_t")
    (tmp_path / "raw.yaml").write_text("feature_spec: {town: {dtype: str}, label: {dtype: bool}}\nsource_spec: {}\n"
                                       "channel_spec: {categorical: [town], label: [label]}\n")
    refused(clickwise("plan", "tiny/dlrm", "--gpus", "8", "--cardinalities", "raw.yaml"), "dtype: str", code=1)
    refused(clickwise("plan", "tiny/dlrm", "--gpus", "8", "data={path: raw.yaml}"), "raw text", code=1)
    (tmp_path / "needs_values.py").write_text(textwrap.dedent("""
        from clickwise.models.dlrm import DLRM

        class Mine(DLRM):
            def __init__(self, spec, embeddings, config):
                super().__init__(spec, embeddings, config)
                float(self.output.bias.detach().sum())
        """))
    refused(clickwise("plan", "tiny/dlrm", "--gpus", "8", "model.name=needs_values.Mine"), "`meta` device", code=1)
