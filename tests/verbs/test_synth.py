"""`clickwise synth`: every mapping of a spec, and what is printed."""

from __future__ import annotations

import json

from clickwise.data.columns import read_columns
from clickwise.feature_spec import Feature, FeatureSpec, split_binary_chunks

FEATURES = {"y": Feature("y", "bool"), "x": Feature("x", "float32"), "c": Feature("c", "int8", 20)}
CHANNELS = {"label": ("y",), "numerical": ("x",), "categorical": ("c",)}


def synth(clickwise, *words):
    result = clickwise("synth", *words, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_every_mapping_of_a_spec_is_made(clickwise, tmp_path):
    (tmp_path / "mine").mkdir()
    mappings = {name: split_binary_chunks(FEATURES, CHANNELS, name) for name in ("train", "validation", "test")}
    FeatureSpec(FEATURES, mappings, CHANNELS).save(tmp_path / "mine")
    found = synth(clickwise, "mine/feature_spec.yaml", "--out", "ds", "--rows", 300, "--test-rows", 40)
    spec, rows = FeatureSpec.load(tmp_path / "ds"), {"train": 300, "validation": 40, "test": 40}
    assert {name: read_columns(spec, name).rows for name in spec.mappings} == rows
    assert found["folder"] == "ds" and {name: found[f"{name} rows"] for name in rows} == rows
    assert all(0.5 < found[f"{name} best_auc"] < 1 for name in rows)
    assert not any(isinstance(value, dict) for value in found.values())


def test_raw_logs_listen_to_alpha_and_threads(clickwise, tmp_path):
    words = ["criteo_raw", "--rows", 200]
    found = synth(clickwise, *words, "--out", "a", "--alpha", 0.0, "--threads", 1)
    assert found["folder"] == "a" and found["rows"] == 200 and 0.5 < found["best_auc"] < 1
    synth(clickwise, *words, "--out", "b", "--alpha", 3.0, "--threads", 2)

    def different(folder) -> int:
        lines = (tmp_path / folder / "day_0").read_text().splitlines()
        return len({line.split("\t")[-1] for line in lines})

    assert different("b") < different("a")
