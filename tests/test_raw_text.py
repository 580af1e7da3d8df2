"""`dtype: str` in a Feature Spec: raw values, allowed only where preparation reads them."""

from __future__ import annotations

import pytest

from clickwise.errors import SpecError
from clickwise.feature_spec import Chunk, Feature, FeatureSpec, check_encoded

FEATURES = {"label": Feature("label", "str"), "city": Feature("city", "str", "auto"), "age": Feature("age", "float32"),
            "tags": Feature("tags", "str", "auto", max_hotness=3), "session": Feature("session", "str"),
            "item": Feature("item", "str")}
CHANNELS = {"label": ("label",), "numerical": ("age",), "categorical": ("city", "tags"), "display": ("session",),
            "own": ("item",)}


def spec(chunk_type="csv", **changes):
    return FeatureSpec({**FEATURES, **changes}, {"train": (Chunk(chunk_type, tuple(FEATURES), ("rows",)),)}, CHANNELS)


@pytest.mark.parametrize("chunk_type", ["csv", "parquet"])
def test_texts_stand_in_csv_and_parquet_but_numbers(tmp_path, chunk_type):
    spec(chunk_type).save(tmp_path)
    assert FeatureSpec.load(tmp_path) == spec(chunk_type)
    with pytest.raises(SpecError, match="(?s)raw text .*clickwise prepare table/prepare dataset.spec=") as caught:
        check_encoded(FeatureSpec.load(tmp_path))
    assert "feature_spec.label" in str(caught.value)


@pytest.mark.parametrize(("changes", "words"), [
    ({"chunk_type": "split_binary"}, "texts .* in a split_binary chunk"),
    ({"chunk_type": "tfrecord"}, "texts .* in a tfrecord chunk"),
    ({"age": Feature("age", "str")}, "str in the channel 'numerical'"),
    ({"city": Feature("city", "str", 10)}, "10 for texts .* auto"),
    ({"label": Feature("label", "str", max_hotness=2)}, "max_hotness"),
])
def test_and_nowhere_else(changes, words):
    with pytest.raises(SpecError, match="(?s)" + words):
        spec(**changes)
