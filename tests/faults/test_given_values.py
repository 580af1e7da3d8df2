"""Files that somebody else wrote, YAML, JSON, pipes in place of files: one message, soon, whatever they hold."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest

from clickwise import strict_yaml
from clickwise.encoding import Encoder, Encoding
from clickwise.errors import ClickwiseError, DataError, SpecError
from clickwise.feature_spec import FeatureSpec
from clickwise.given_files import read_given_json
from clickwise.report.run import read_run
from clickwise.strict_yaml import parse_yaml

SPEC = """
feature_spec: {label: {dtype: bool}, c: {dtype: int8, cardinality: 9}}
source_spec: null
channel_spec: {label: [label], categorical: [c]}
"""


def bomb(*, merged: bool) -> str:
    """Nine times nine times … the same list, in 400 bytes."""
    lines = ["a: &a {x: 1}"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        nine = ", ".join([f"*{before}"] * 9)
        lines.append(f"{name}: &{name} " + (f"{{<<: [{nine}]}}" if merged else f"[{nine}]"))
    return "\n".join(lines)


TEXTS = {
    "a day that is none": "2021-99-99", "an hour that is none": "2021-01-01T99:00:00",
    "a template left in": "{{name}: 1}", "a list as a key": "{? [a, b] : 1}", "a day as a key": "{2021-01-01: 1}",
    "!!int abc": "!!int abc", "!!bool abc": "!!bool abc", "!!timestamp abc": "!!timestamp abc", "!!int ''": "!!int ''",
    "!!map of a word": "!!map abc", "!!set of a list": "!!set [a]", "0x_": "0x_", "10,000 digits": "9" * 10_000,
    "as many hexadecimal ones": "0x" + "f" * 10_000, "as many to the base of 60": "1" + ":1" * 10_000,
    "a fraction to the base of 60": "1" + ":1" * 300 + ".5", "2,000 brackets": "[" * 2000 + "]" * 2000,
    "200,000 brackets": "[" * 200_000, "5,000 dashes": "- " * 5000, "5,000 question marks": "? " * 5000,
    "an alias of itself": "&m {self: *m}", "aliases of aliases": bomb(merged=False),
    "mappings merged again and again": bomb(merged=True), "half of a pair of surrogates": "\udcff"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_fault_yaml_values(text, tmp_path):
    with pytest.raises(SpecError) as told:
        parse_yaml(text, "spec", SpecError)
    assert told.value.where.startswith("spec") and len(str(told.value)) < 1000
    (tmp_path / "feature_spec.yaml").write_text(f"{SPEC}metadata:\n  " + text.replace("\n", "\n  "), "utf-8",
                                                "surrogateescape")
    with pytest.raises(SpecError):
        FeatureSpec.load(tmp_path).fingerprint()


@pytest.mark.parametrize("text", [*TEXTS.values(), "a: 1e-4", "{x: &x [1, 2], y: *x}", "0x1f", "1e999", "[1, 2"])
def test_both_loaders_take_and_refuse_the_same(text):
    def read(loader):
        try:
            return strict_yaml._load(text, loader)
        except (strict_yaml.yaml.YAMLError, UnicodeEncodeError):
            return "refused"

    assert read(strict_yaml._FastLoader) == read(strict_yaml._StrictLoader)


def test_aliases_that_stand_for_little_are_read():
    assert parse_yaml("x: &x {lr: 0.1}\ny: *x\nz: [*x, *x]", "here")["z"] == [{"lr": 0.1}, {"lr": 0.1}]


@pytest.mark.parametrize("metadata", [
    "{m: {1: a, b: c}}", "{m: {1: a, null: c, 2.5: d}}", "{days: 2021-01-01}", "{s: !!set {a}}"])
def test_what_is_a_persons_own_in_a_spec_has_a_fingerprint(metadata, tmp_path):
    (tmp_path / "feature_spec.yaml").write_text(f"{SPEC}metadata: {metadata}")
    spec = FeatureSpec.load(tmp_path)
    spec.save(tmp_path)
    assert FeatureSpec.load(tmp_path).fingerprint() == spec.fingerprint()


@pytest.mark.parametrize("override", [
    "train.seed=18446744073709551616", "model.name=5", "model.name=[1]", "model.name={a: 1}",
    "data.path=\"a\\0b\"", "train.device=[cpu]", "a." * 2000 + "b=1"])
def test_fault_yaml_values_as_overrides(clickwise, override):
    result = clickwise("train", "tiny/dlrm", override, "train.steps=1")
    assert result.code == 2 and "Traceback" not in result.err and "found" in result.err


def test_a_message_does_not_repeat_a_whole_section(clickwise):
    result = clickwise("train", "tiny/dlrm", "train.batch_size=[" + "x," * 50_000 + "]")
    assert result.code == 2 and len(result.err) < 5000


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 500 + "]" * 500, "9" * 10_000, '{"a": ' + "9" * 200 + "}",
                                  "\xff"])
def test_json_is_refused_as_a_value_error(text, tmp_path):
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError):
        read_given_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["preparation/summary.json", ".checked.json", "preparation/encoding.json",
                                  "preparation/columns.json", "manifest.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, "[]", "{}", "{\"fingerprint\": {}}"])
def test_json_of_a_strangers_dataset_is_read_as_far_as_it_can_be(columns, clickwise, tmp_path, name, text):
    shutil.copytree(columns, tmp_path / "columns")
    (tmp_path / "columns" / name).write_text(text)
    for words in (["prepare", "table/prepare", f"dataset.spec={columns.parent / 'spec'}", "out=columns"],
                  ["train", "table/dcnv2", "data.path=columns", "train.batch_size=50", "train.steps=1",
                   "baselines=[]", "data.validation=null"]):
        result = clickwise(*words)
        assert result.code in (0, 1) and "Traceback" not in result.err


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """A small table that was prepared; beside it spec/, its Feature Spec."""
    from clickwise import prepare
    from clickwise.prepare.infer import infer
    from clickwise.recipe import load

    folder = tmp_path_factory.mktemp("columns")
    (folder / "rows.csv").write_text("click,shop\n" + "".join(f"{row % 2},shop {row % 7}\n" for row in range(200)))
    infer([folder / "rows.csv"], label="click").save(folder / "spec")
    return prepare.run(load("table/prepare", [f"dataset.spec={folder / 'spec'}", f"out={folder / 'columns'}"]), "here")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The encoding of a small table with a column of every kind."""
    import clickwise as cw

    folder = tmp_path_factory.mktemp("encoding")
    rows = 200
    model = cw.fit({"label": [i % 2 for i in range(rows)], "price": [i % 97 * 1.5 for i in range(rows)],
                    "shop": [f"shop {i % 7}" for i in range(rows)], "tags": [f"a|b{i % 5}" for i in range(rows)]},
                   label="label", multi_hot={"tags": "|"}, settings={"train.steps": 1, "train.batch_size": 50})
    model.save(folder / "run")
    return folder / "run"


def places(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else list(enumerate(value))[:2]:
            yield from places(item, (*path, key))


def test_a_strangers_encoding_is_read_or_refused(prepared, tmp_path):
    folder = prepared / "encoding"
    whole = json.loads((folder / "encoding.json").read_text())
    os.symlink(folder / "states", tmp_path / "states")
    row = {"label": "1", "price": "2", "shop": "x", "tags": "a|c"}
    refused = 0
    for path in list(places(whole))[1:]:
        for value in (None, -1, 10**30, 1.5, "x", "", [], {}, [[]]):
            content = copy.deepcopy(whole)
            holder = content
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            (tmp_path / "encoding.json").write_text(json.dumps(content))
            try:
                Encoder(Encoding.load(tmp_path)).row(row)
            except DataError:
                refused += 1
    assert refused > 100


def test_a_vocabulary_in_which_a_search_would_not_end_is_refused(prepared, tmp_path):
    for file in (prepared / "encoding" / "states").iterdir():
        content = bytearray(file.read_bytes())
        bits = int.from_bytes(content[24:32], "little")
        content[64:64 + 4 * 2**bits] = (1).to_bytes(4, "little") * 2**bits
        (tmp_path / file.name).write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            from clickwise.encoding.vocabulary_file import VocabularyFile

            VocabularyFile(tmp_path / file.name)


def test_the_report_of_a_strangers_run_refuses_aliases_of_aliases(tmp_path):
    (tmp_path / "recipe.yaml").write_text(bomb(merged=False))
    with pytest.raises(ClickwiseError, match="aliases"):
        read_run(tmp_path).settings()


@pytest.mark.parametrize("words", [
    ("train", "PIPE.yaml"), ("train", "/dev/zero"), ("recipes", "show", "PIPE.yaml"),
    ("recipes", "copy", "PIPE.yaml", "x.yaml"), ("train", "tiny/dlrm", "data={path: PIPE.yaml}"),
    ("transcode", "PIPE.yaml", "--out", "x"), ("spec", "infer", "PIPE.csv", "--label", "y", "--out", "x"),
    ("spec", "infer", "/dev/zero", "--label", "y", "--out", "x"),
    ("prepare", "criteo/prepare", "dataset.train=[PIPE]"),
    ("prepare", "table/prepare", "dataset.spec=PIPE.yaml"), ("predict", "RUN", "--input", "PIPE.csv"),
    ("predict", "RUN", "--input", "PIPE.parquet"), ("predict", "RUN", "--input", "PIPE.csv", "--encoded")],
    ids=" ".join)
def test_a_pipe_or_device_in_place_of_a_file_is_refused(clickwise, prepared, words):
    words = [word.replace("RUN", str(prepared)) for word in words]
    for word in words:
        if "PIPE" in word:
            name = word[word.index("PIPE"):].strip("]}")
            os.mkfifo(Path(name))
    result = clickwise(*words)
    assert result.code in (1, 2) and ("pipe" in result.err or "device" in result.err), result.err


@pytest.mark.parametrize("file", ["encoding/encoding.json", "encoding/states/0.vocabulary", "feature_spec.yaml"])
def test_a_pipe_in_a_strangers_run_is_refused(clickwise, prepared, tmp_path, file):
    shutil.copytree(prepared, tmp_path / "run")
    (tmp_path / "run" / file).unlink()
    os.mkfifo(tmp_path / "run" / file)
    (tmp_path / "rows.csv").write_text("price,shop,tags\n1,x,a\n")
    result = clickwise("predict", "run", "--input", "rows.csv")
    assert result.code == 1 and "pipe" in result.err and "Traceback" not in result.err
