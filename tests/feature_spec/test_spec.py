"""Feature Spec: what loads, what comes back, and what each rule says to the person who broke it."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.errors import SpecError
from clickwise.feature_spec import (
    CHANNELS,
    ID_CHANNELS,
    UNKNOWN_IDS,
    Chunk,
    Feature,
    FeatureSpec,
    narrowest_id_dtype,
    split_binary_chunks,
)
from clickwise.files import file_stem

CRITEO = {  # the shape of the default layout, key order as an alphabetical dumper leaves it
    "channel_spec": {"categorical": ["cat_0.bin", "cat_2.bin", "cat_10.bin"], "label": ["label"],
                     "numerical": ["num_0", "num_1", "num_10"]},
    "feature_spec": {"cat_0.bin": {"cardinality": 100000, "dtype": "int32"},
                     "cat_10.bin": {"cardinality": 10, "dtype": "int8"},
                     "cat_2.bin": {"cardinality": 3000, "dtype": "int16", "hotness": 1, "alpha": 1.45},
                     "label": {"dtype": "bool"}, "num_0": {"dtype": "float16"}, "num_1": {"dtype": "float16"},
                     "num_10": {"dtype": "float16"}},
    "metadata": {},
    "source_spec": {
        mapping: [{"type": "split_binary", "features": ["num_0", "num_1", "num_10"],
                   "files": [f"{mapping}/numerical.bin"]},
                  {"type": "split_binary", "features": ["label"], "files": [f"{mapping}/label.bin"]},
                  *({"type": "split_binary", "features": [name], "files": [f"{mapping}/{name}"]}
                    for name in ("cat_0.bin", "cat_2.bin", "cat_10.bin"))]
        for mapping in ("test", "train")},
}
OUTBRAIN = """
feature_spec:
  clicked: {}
  display_id: {}
  ad_id: {cardinality: 250000}
  topics: {cardinality: 350, max_hotness: 3}
  age: {dtype: float64}
source_spec:
  train: [{type: parquet, features: [clicked, ad_id, topics, age], files: [train/0.parquet, train/1.parquet]}]
  test: [{type: parquet, features: [clicked, ad_id, topics, age, display_id], files: [valid/0.parquet]}]
channel_spec:
  multihot_categorical: [topics]
  onehot_categorical: [ad_id]
  numerical: [age]
  label: [clicked]
  map: [display_id]
"""
SIM = """
channel_spec:
  label: [label]
  user_features: [user]
  target_item_features: [item, cat]
  positive_history: [item_pos, cat_pos]
  negative_history: [item_neg, cat_neg]
feature_spec:
  label: {dtype: bool}
  user: {cardinality: 105925, dtype: int64}
  item: {cardinality: 1209081, dtype: int64}
  cat: {cardinality: 2330, dtype: int64}
  item_pos: {cardinality: 1209081, dtype: int64, dimensions: [100]}
  cat_pos: {cardinality: 2330, dtype: int64, dimensions: [100]}
  item_neg: {cardinality: 1209081, dtype: int64, dimensions: [100]}
  cat_neg: {cardinality: 2330, dtype: int64, dimensions: [100]}
metadata: {}
source_spec:
  train:
  - type: tfrecord
    features: [label, user, item, cat, item_pos, cat_pos, item_neg, cat_neg]
    files: [train/part_0.tfrecord, train/part_1.tfrecord, train/remainder.tfrecord]
"""


def load(tmp_path, content) -> FeatureSpec:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (tmp_path / "feature_spec.yaml").write_text(text)
    return FeatureSpec.load(tmp_path)


def changed(*path, to, content=CRITEO):
    """`content` with the value at `path` replaced; `to=None` removes it."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return content


def test_criteo_loads_unmodified_in_the_order_of_its_lists(tmp_path):
    spec = load(tmp_path, CRITEO)
    assert [feature.name for feature in spec.channel("categorical")] == ["cat_0.bin", "cat_2.bin", "cat_10.bin"]
    assert [feature.name for feature in spec.channel("numerical")] == ["num_0", "num_1", "num_10"]
    assert spec.features["cat_2.bin"] == Feature("cat_2.bin", "int16", 3000, extra={"hotness": 1, "alpha": 1.45})
    assert spec.channel("history") == ()
    assert spec.mappings["train"][1] == Chunk("split_binary", ("label",), ("train/label.bin",))
    assert list(spec.channels) == ["categorical", "label", "numerical"]


def test_outbrain_loads_unmodified(tmp_path):
    spec = load(tmp_path, OUTBRAIN)
    assert spec.channels["categorical"] == ("ad_id", "topics")  # one-hot first, whatever stands first in the file
    assert spec.channels["display"] == ("display_id",)
    assert spec.features["topics"].is_multi_hot and not spec.features["ad_id"].is_multi_hot
    assert spec.features["ad_id"].dtype == "int32" and spec.features["clicked"].dtype == "bool"
    assert spec.mappings["train"][0].files == ("train/0.parquet", "train/1.parquet")


def test_sim_loads_unmodified(tmp_path):
    spec = load(tmp_path, SIM)
    assert set(spec.channels) == {"label", "user", "target_item", "history", "negative_history"}
    assert spec.features["item_pos"].dimensions == (100,)


def test_synthetic_spec_without_sources_and_with_an_int8_label_loads(tmp_path):
    content = changed("source_spec", to={})
    content["source_spec"] = None
    content["feature_spec"]["label"]["dtype"] = "int8"
    assert load(tmp_path, content).mappings == {}


def test_any_mappings_and_own_channels_are_allowed(tmp_path):
    content = changed("channel_spec", "timestamps", to=["time"])
    content["feature_spec"]["time"] = {"dtype": "int64"}
    content["source_spec"]["validation"] = content["source_spec"].pop("test")
    spec = load(tmp_path, content)
    assert set(spec.mappings) == {"train", "validation"} and spec.channel("timestamps")[0].name == "time"


@pytest.mark.parametrize("numerical", [[], None])
def test_there_may_be_no_numericals(tmp_path, numerical):
    content = changed("channel_spec", "numerical", to=[])
    content["channel_spec"]["numerical"] = numerical
    for name in ("num_0", "num_1", "num_10"):
        del content["feature_spec"][name]
    for chunks in content["source_spec"].values():
        del chunks[0]
    assert load(tmp_path, content).channel("numerical") == ()


def test_the_display_may_be_a_feature_of_another_channel(tmp_path):
    spec = load(tmp_path, changed("channel_spec", "display", to=["cat_0.bin"]))
    assert spec.channel("display") == spec.channel("categorical")[:1]


@pytest.mark.parametrize("content", [CRITEO, OUTBRAIN, SIM], ids=["criteo", "outbrain", "sim"])
def test_load_save_load_is_the_identity(tmp_path, content):
    first = load(tmp_path, content)
    path = first.save(tmp_path / "again")
    second = FeatureSpec.load(path)
    assert second == first and second.fingerprint() == first.fingerprint()
    second.save(tmp_path / "third")
    assert (tmp_path / "third" / "feature_spec.yaml").read_text() == path.read_text()


def test_key_order_changes_neither_equality_nor_fingerprint(tmp_path):
    first = load(tmp_path, CRITEO)
    backwards = {key: dict(reversed(value.items())) for key, value in reversed(CRITEO.items())}
    (tmp_path / "feature_spec.yaml").write_text(yaml.safe_dump(backwards, sort_keys=False))
    second = FeatureSpec.load(tmp_path)
    assert second == first and second.fingerprint() == first.fingerprint()


def test_list_order_changes_the_fingerprint(tmp_path):
    first = load(tmp_path, CRITEO)
    other = changed("channel_spec", "categorical", to=["cat_2.bin", "cat_0.bin", "cat_10.bin"])
    assert load(tmp_path, other).fingerprint() != first.fingerprint()


def test_numpy_numbers_are_saved_as_plain_yaml(tmp_path):
    feature = Feature("a", "int8", np.int64(5), extra={"alpha": np.float32(0.5)})
    spec = FeatureSpec({"a": feature}, {}, {"categorical": ["a"]}, {"rows": np.int64(7)})
    spec.save(tmp_path)
    assert yaml.safe_load((tmp_path / "feature_spec.yaml").read_text())["feature_spec"]["a"] == {
        "dtype": "int8", "cardinality": 5, "alpha": 0.5}
    assert FeatureSpec.load(tmp_path) == spec


names = st.text("abcdefgh_0123.é ", min_size=1, max_size=8).map(lambda text: f"x{text}")
words = st.text(max_size=8)
plain = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), words, st.none())


@st.composite
def specs(draw) -> FeatureSpec:
    """Any spec in the default layout, of any channels, with extras and metadata."""
    features, channels = {}, {}
    free = draw(st.lists(names, unique=True, min_size=1, max_size=12))
    for name in free:
        channel = draw(st.sampled_from([*CHANNELS, "zzz"]))
        if channel in ("label", "display") and channels.get(channel):
            channel = "numerical"
        extra = draw(st.dictionaries(st.text("pqr", min_size=1), plain, max_size=2))
        if channel in ID_CHANNELS:
            is_history = "history" in channel  # of features that stand side by side, with twins
            cardinality = 70_000 if is_history else draw(st.integers(1, 2**40))
            hotness = 7 if is_history else draw(st.none() | st.integers(1, 9))
            feature = Feature(name, narrowest_id_dtype(cardinality), cardinality, hotness, extra=extra,
                              unknown_ids=draw(st.sampled_from([None, *UNKNOWN_IDS])))
        else:
            feature = Feature(name, "float16" if channel == "numerical" else "int64", extra=extra)
        features[name] = feature
        channels.setdefault(channel, []).append(name)
    if len(channels.get("negative_history", ())) not in (0, len(channels.get("history", ()))):
        channels["categorical"] = channels.get("categorical", []) + channels.pop("negative_history", [])
    mappings = {name: split_binary_chunks(features, channels, name) for name in draw(st.sets(names, max_size=3))}
    metadata = draw(st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
    return FeatureSpec(features, mappings, channels, {"note": metadata})


@settings(deadline=None)  # every example writes a file
@given(spec=specs())
def test_any_spec_survives_the_disk(tmp_path_factory, spec):
    folder = tmp_path_factory.mktemp("spec")
    spec.save(folder)
    loaded = FeatureSpec.load(folder)
    assert loaded == spec
    assert loaded.fingerprint() == spec.fingerprint()
    for mapping in loaded.mappings.values():
        files = [name for chunk in mapping for name in chunk.files]
        assert len({name.lower() for name in files}) == len(files)  # no two columns share a file


def test_layout_keeps_names_that_collide_apart():
    features = {name: Feature(name, "int8", 5) for name in ("label", "a/b", "a_b", "A_b", "cat_0.bin", "cat_0", "..",
                                                           "x" * 300, "x" * 301, "é" * 150)}
    chunks = split_binary_chunks(features, {"categorical": list(features)}, "train")
    files = [chunk.files[0] for chunk in chunks]
    assert len({name.lower() for name in files}) == len(features)
    assert all(name.startswith("train/") and name.count("/") == 1 and ".." not in name for name in files)
    assert all(len(name.encode()) < 255 for name in files)


@pytest.mark.parametrize(("cardinality", "dtype"), [
    (1, "int8"), (126, "int8"), (127, "int16"), (32766, "int16"), (32767, "int32"), (2147483646, "int32"),
    (2147483647, "int64")])
def test_narrowest_id_dtype(cardinality, dtype):
    assert narrowest_id_dtype(cardinality) == dtype


RULES = {  # what is wrong: (the content, then words that the message must hold)
    "channel names a missing feature": (
        changed("channel_spec", "categorical", to=["cat_0.bin", "cat_2.bin", "cat_1o.bin"]),
        "channel_spec.categorical", "cat_1o.bin", "did you mean 'cat_10.bin'"),
    "feature twice in a channel": (
        changed("channel_spec", "numerical", to=["num_0", "num_0", "num_1", "num_10"]), "'num_0' twice"),
    "feature in two channels": (
        changed("channel_spec", "user", to=["cat_0.bin"]), "'cat_0.bin'", "'categorical' too"),
    "two labels": (changed("channel_spec", "label", to=["label", "num_10"]), "channel_spec"),
    "feature in no channel": (changed("channel_spec", "label", to=[]), "feature_spec.label", "no channel"),
    "channel misspelt": (
        changed("channel_spec", "categorcal", to=[]), "categorcal", "did you mean 'categorical'"),
    "unknown section": (changed("chanel_spec", to={}), "chanel_spec", "did you mean 'channel_spec'"),
    "no channel_spec": (changed("channel_spec", to=None), "channel_spec", "nothing"),
    "no feature_spec": (changed("feature_spec", to=None), "feature_spec", "nothing"),
    "dtype missing": (changed("feature_spec", "num_0", to={"dtyp": "float16"}), "feature_spec.num_0", "dtyp"),
    "dtype unknown": (
        changed("feature_spec", "num_0", "dtype", to="flaot16"), "num_0.dtype", "did you mean 'float16'"),
    "dtype no number": (changed("feature_spec", "num_0", "dtype", to="S4"), "num_0.dtype", "S4"),
    "dtype big-endian": (changed("feature_spec", "cat_2.bin", "dtype", to=">i2"), ">i2", "little-endian"),
    "ids of a float type": (changed("feature_spec", "cat_2.bin", "dtype", to="float32"), "cat_2.bin.dtype", "float32"),
    "ids without cardinality": (
        changed("feature_spec", "cat_2.bin", to={"dtype": "int16", "cardinalty": 3}), "cat_2.bin.cardinality",
        "'cardinalty'"),
    "cardinality a text": (
        changed("feature_spec", "cat_2.bin", "cardinality", to="many"), "cat_2.bin.cardinality", "'many'"),
    "cardinality a bool": (changed("feature_spec", "cat_2.bin", "cardinality", to=True), "True", "integer"),
    "cardinality zero": (changed("feature_spec", "cat_2.bin", "cardinality", to=0), "cardinality", "at least 1"),
    "cardinality too great for the dtype": (
        changed("feature_spec", "cat_10.bin", "cardinality", to=129), "129 ids in int8", "int16"),
    "unknown_ids misspelt": (
        changed("feature_spec", "cat_2.bin", "unkown_ids", to="zero"), "cat_2.bin.unkown_ids", "error, zero, modulo"),
    "unknown_ids that no one knows": (
        changed("feature_spec", "cat_2.bin", "unknown_ids", to="modul"), "cat_2.bin.unknown_ids",
        "did you mean 'modulo'"),
    "unknown_ids a bool": (changed("feature_spec", "cat_2.bin", "unknown_ids", to=False), "unknown_ids", "False"),
    "unknown_ids without ids": (
        changed("feature_spec", "num_0", "unknown_ids", to="error"), "num_0.unknown_ids", "without ids"),
    "unknown_ids with cardinality auto": (
        "feature_spec: {a: {cardinality: auto, unknown_ids: zero}}\nchannel_spec: {categorical: [a]}",
        "feature_spec.a.unknown_ids", "counts every id as known"),
    "cardinality auto in raw files": (
        changed("feature_spec", "cat_10.bin", "cardinality", to="auto"), "auto", "transcode"),
    "max_hotness a text": (changed("feature_spec", "cat_2.bin", "max_hotness", to="x"), "max_hotness", "'x'"),
    "numerical multi-hot": (changed("feature_spec", "num_0", "max_hotness", to=3), "max_hotness", "'numerical'"),
    "dimensions no list": (changed("feature_spec", "cat_2.bin", "dimensions", to=5), "dimensions", "5"),
    "unknown chunk type": (
        changed("source_spec", "train", 0, "type", to="splitbinary"), "train[0].type", "did you mean 'split_binary'"),
    "unknown chunk key": (changed("source_spec", "train", 0, "file", to=["x"]), "train[0].file", "'files'"),
    "chunk without files": (changed("source_spec", "train", 0, "files", to=[]), "train[0].files", "at least one"),
    "files a text": (changed("source_spec", "train", 0, "files", to="x.bin"), "train[0].files", "x.bin", "list"),
    "chunk without features": (changed("source_spec", "train", 1, "features", to=[]), "train[1].features"),
    "chunk with an unknown feature": (
        changed("source_spec", "train", 1, "features", to=["labl"]), "train[1].features", "did you mean 'label'"),
    "feature in two chunks": (
        changed("source_spec", "train", 3, "features", to=["cat_0.bin"]), "train[3].features", "chunk [2]"),
    "feature in no chunk": (
        changed("source_spec", "test", 4, to=None), "source_spec.test", "'cat_10.bin'", "'categorical'"),
    "no chunk": (changed("source_spec", "test", to=[]), "source_spec.test"),
    "two categoricals in a raw chunk": (
        changed("source_spec", "train", 3, "features", to=["cat_2.bin", "cat_10.bin"]), "train[3].features", "one"),
    "numericals in another order": (
        changed("source_spec", "train", 0, "features", to=["num_0", "num_10", "num_1"]), "another order"),
    "numericals in two raw chunks": (
        changed("source_spec", "train", 0, "features", to=["num_0", "num_1"]), "another set", "num_10"),
    "numericals of two types": (
        changed("feature_spec", "num_0", "dtype", to="float32"), "[0].features", "float16, float32"),
    "multi-hot with one file": (
        changed("feature_spec", "cat_2.bin", "max_hotness", to=3), "files", "values and its offsets"),
    "feature name no text": ("feature_spec: {1: {dtype: int8}}\nchannel_spec: {}", "feature_spec", "1", "quotes"),
    "feature entry no mapping": (changed("feature_spec", "label", to="bool"), "feature_spec.label", "'bool'"),
    "chunk no mapping": (changed("source_spec", "train", 0, to="x"), "train[0]", "'x'"),
    "source_spec a list": (changed("source_spec", to=[1]), "source_spec", "mapping"),
    "key twice": ("feature_spec: {}\nfeature_spec: {}\n", "line 2", "'feature_spec' stands twice"),
    "no YAML": ("feature_spec: {a: [\n", "line"),
    "a list": ("- a\n", "list", "mapping"),
    "empty file": ("", "empty file"),
    "numpy in the YAML": ("feature_spec: {a: {cardinality: !!python/object/apply:numpy.int64 [3]}}",
                          "line 1", "write the number itself"),
    "csv delimiter of many letters": (
        "feature_spec: {a: {}}\nchannel_spec: {numerical: [a]}\n"
        "source_spec: {t: [{type: csv, features: [a], files: [f], delimiter: and more}]}", "delimiter", "a character"),
    "csv without a decimal": (
        "feature_spec: {a: {}}\nchannel_spec: {numerical: [a]}\n"
        "source_spec: {t: [{type: csv, features: [a], files: [f], decimal: ';'}]}", "decimal", ". or ,"),
    "csv in no encoding": (
        "feature_spec: {a: {}}\nchannel_spec: {numerical: [a]}\n"
        "source_spec: {t: [{type: csv, features: [a], files: [f], encoding: utf-9}]}", "encoding", "an encoding"),
    "csv with one delimiter for all": (
        "feature_spec: {a: {cardinality: 9, dtype: int8, max_hotness: 2}}\nchannel_spec: {categorical: [a]}\n"
        "source_spec: {t: [{type: csv, features: [a], files: [f], delimiter: '|'}]}", "list_delimiter"),
    **{f"texts with {entry}": (
        f"feature_spec: {{a: {{dtype: str, {entry}}}}}\nchannel_spec: {{categorical: [a]}}\n"
        "source_spec: {t: [{type: jsonl, features: [a], files: [f]}]}", *words) for entry, words in {
            "format: '%d/%m'": ("feature_spec.a.format", "%Y or %y not once"),
            "format: 7": ("feature_spec.a.format", "7"),
            "list_delimiter: ';'": ("feature_spec.a.list_delimiter", "max_hotness"),
            "max_hotness: 3, list_delimiter: ''": ("feature_spec.a.list_delimiter", "''"),
            "max_hotness: 3, list_delimeter: ';'": ("feature_spec.a.list_delimeter", "the unknown key")}.items()},
    "a key for JSON lines": (
        "feature_spec: {a: {dtype: str}}\nchannel_spec: {categorical: [a]}\n"
        "source_spec: {t: [{type: jsonl, features: [a], files: [f], delimiter: ';'}]}", "delimiter", "the unknown key"),
}


@pytest.mark.parametrize("rule", RULES)
def test_broken_rule(tmp_path, rule):
    content, *words = RULES[rule]
    with pytest.raises(SpecError) as caught:
        load(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "feature_spec.yaml"))
    assert "found" in message
    for word in words:
        assert word in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_missing_file_and_folder_without_a_spec(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        FeatureSpec.load(tmp_path / "feature_spec.yaml")
    with pytest.raises(SpecError, match="a folder without feature_spec.yaml"):
        FeatureSpec.load(tmp_path)
    (tmp_path / "feature_spec.yaml").mkdir()
    with pytest.raises(SpecError, match="cannot be read"):
        FeatureSpec.load(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00\x9c")
    with pytest.raises(SpecError, match="not a text file"):
        FeatureSpec.load(tmp_path / "picture.yaml")


def test_unknown_mapping_names_the_nearest(tmp_path):
    with pytest.raises(SpecError, match="did you mean 'train'"):
        load(tmp_path, CRITEO).chunks("trian")


def test_rules_hold_for_specs_made_in_code():
    with pytest.raises(SpecError, match="2000 ids in int8"):
        FeatureSpec({"a": Feature("a", "int8", 2000)}, {}, {"categorical": ("a",)})


def test_the_example_of_the_documentation_loads(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "feature_spec.md").read_text(encoding="utf-8")
    spec = load(tmp_path, re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert spec.features["tags"].is_multi_hot and spec.features["city"].cardinality == "auto"
    for channel in CHANNELS:
        assert f"`{channel}`" in text


GOOD_NAMES = ["cat_0.bin", "user id", "preis_€", "город", "a..b", "...", ".hidden", "a:b", "?", "x" * 300]
NO_FOLDERS = ["/etc/passwd", "a/b", "../up", "..", ".", "a\\b"]
BAD_NAMES = ["", " ", "a\nb", "tab\t", "nul\0", "\x7f", "\u2028"]


def one_feature(name, mapping="train"):
    chunk = Chunk("split_binary", (name,), ("x.bin",))
    return FeatureSpec({name: Feature(name, "int8", 9)}, {mapping: (chunk,)}, {"categorical": (name,)})


@pytest.mark.parametrize("name", [*GOOD_NAMES, *NO_FOLDERS])
def test_names_that_may_be(name, tmp_path):
    one_feature(name).save(tmp_path)
    assert list(FeatureSpec.load(tmp_path).features) == [name]


@pytest.mark.parametrize("name", [*GOOD_NAMES, *NO_FOLDERS])
def test_what_files_of_a_feature_are_called(name, tmp_path):
    """One name inside the folder, and none that two features share."""
    others = ["a%2Fb", "a%252Fb", "x" * 299, "x" * 301, "a b"]
    stems = [file_stem(other) for other in dict.fromkeys([name, *others])]
    assert len(set(stems)) == len(stems)
    for ending in (".parquet", ".values.bin"):
        path = tmp_path / f"{stems[0]}{ending}"
        path.touch()
        assert path.parent == tmp_path and [file.name for file in tmp_path.iterdir()] == [path.name]
        path.unlink()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_nobody_can_write(name):
    with pytest.raises(SpecError, match=r"feature_spec\n.*the name"):
        one_feature(name)


@pytest.mark.parametrize("name", [*BAD_NAMES, *NO_FOLDERS])
def test_names_that_would_lead_elsewhere(name):
    with pytest.raises(SpecError, match=r"source_spec\n.*the name"):
        one_feature("c", mapping=name)


def test_a_spec_that_is_not_there_says_how_to_get_one(tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\n.*no such file or folder\n.*\n.*clickwise prepare"):
        FeatureSpec.load(tmp_path / "nowhere")
