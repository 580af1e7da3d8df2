"""`clickwise doctor --data`: which raw files of a dataset are there, whole, and the command that comes next."""

from __future__ import annotations

import gzip
import json
import shlex

import pytest

from clickwise.files import shipped
from clickwise.prepare.kuairand.config import KuaiRandConfig
from clickwise.prepare.outbrain.raw import FILES
from clickwise.prepare.raw_files import TABLE_ENDINGS
from clickwise.verbs.doctor_data import _CRITEO_ROWS, DATASETS, SHIPPED, TABLE


def test_the_files_are_those_that_prepare_reads():
    assert TABLE == TABLE_ENDINGS
    assert {file.pattern for file in DATASETS["outbrain"].files} == {
        pattern.removesuffix(".*") for pattern in FILES.values()}
    config = KuaiRandConfig()
    assert {*config.log, *config.users, *config.videos} == {
        file.pattern for file in DATASETS["kuairand"].files if not file.only_for}
    assert sum(_CRITEO_ROWS) == 4_373_472_329  # the total that is published


@pytest.mark.parametrize(("name", "words"), [
    ("criteo", ("synth", "criteo_raw", "--rows", 200)), ("outbrain", ("synth", "outbrain_raw", "--rows", 2000)),
    ("amazon_books", ("synth", "amazon_raw", "--users", 30))])
def test_the_next_command_prepares_what_is_there(clickwise, tmp_path, name, words):
    missing = clickwise("doctor", "--data", name, tmp_path / "raw files", "--json")
    found = json.loads(missing.out)
    assert missing.code == 1 and found["missing"] and not found["problems"]
    assert all(file["path"] is None for file in found["files"])
    assert found["next"][0].startswith("get what is missing from ") and "clickwise synth" in found["next"][1]
    assert clickwise(*words, "--out", tmp_path / "raw files").code == 0
    there = clickwise("doctor", "--data", name, tmp_path / "raw files", "--json")
    found = json.loads(there.out)
    for file in found["files"]:
        assert file["path"] is None or file["bytes"] > 0
    if name == "criteo":  # two of 24 days
        assert there.code == 1 and len(found["missing"]) == 22
        command = found["next"][1].partition("as test: ")[2]
    else:
        assert there.code == 0 and found["missing"] == []
        command = found["next"][0]
    program, verb, recipe, *overrides = shlex.split(command)
    assert (program, verb) == ("clickwise", "prepare")
    overrides += ["out=out", *{"criteo": ["dataset.frequency_limit=2"], "amazon_books": ["dataset.min_events=2"]}.get(
        name, [])]
    assert clickwise(verb, recipe, *overrides).code == 0
    assert (tmp_path / "out/feature_spec.yaml").exists()


def test_what_is_wrong_with_a_file_is_said(clickwise, tmp_path):
    for name, content in (("reviews_Books.json.gz", b"{}\n"), ("meta_Books.json", b"")):
        (tmp_path / name).write_bytes(content)
    result = clickwise("doctor", "--data", "amazon_books", tmp_path)
    assert result.code == 1
    assert "its name says .gz, but it is not compressed" in result.out and "an empty file" in result.out
    assert f"copy these files again: {tmp_path}/reviews_Books.json.gz, {tmp_path}/meta_Books.json" in result.out
    (tmp_path / "meta_Books.json").write_bytes(gzip.compress(b"{}"))
    assert "compressed, without .gz" in clickwise("doctor", "--data", "amazon_books", tmp_path).out


def test_kuairand_is_shipped_and_its_files_are_compared(clickwise, tmp_path):
    result = clickwise("doctor", "--data", "kuairand")
    assert result.code == 0, result.out
    assert result.out.count("checksum right") == 4 and result.out.splitlines()[-1].split(None, 1)[1] == \
        "clickwise prepare kuairand/prepare"
    for name in SHIPPED:
        (tmp_path / name).write_bytes((shipped("data/kuairand_pure") / name).read_bytes() + b"\0")
    result = clickwise("doctor", "--data", "kuairand", tmp_path)
    assert result.out.count("another file than the one that is shipped") == 4
    assert f"clickwise prepare kuairand/prepare dataset.folder={tmp_path}" in result.out
    (tmp_path / "user_features_pure.csv.gz").unlink()
    result = clickwise("doctor", "--data", "kuairand", tmp_path)
    assert result.code == 1 and "or take the part that is shipped: clickwise prepare kuairand/prepare" in result.out


def test_the_file_of_the_kaggle_challenge(clickwise, tmp_path):
    (tmp_path / "train.txt").write_text("0\t" * 39 + "\n")
    result = clickwise("doctor", "--data", "criteo", tmp_path)
    assert f"clickwise prepare criteo/prepare 'dataset.train=[{tmp_path}/train.txt]' dataset.split=fraction_last" \
        in result.out


def test_a_part_is_told_from_the_whole(clickwise, tmp_path):
    clickwise("synth", "outbrain_raw", "--rows", 500, "--out", tmp_path / "raw")
    out = clickwise("doctor", "--data", "outbrain", tmp_path / "raw").out
    line = next(line for line in out.splitlines() if "clicks_train" in line)
    assert "smaller than published: a part, or made up" in line and "published: 87,141,731 rows, 1.4 GB" in line
    (tmp_path / "raw/page_views.csv").unlink()
    result = clickwise("doctor", "--data", "outbrain", tmp_path / "raw")
    assert result.code == 0 and "missing; only outbrain/prepare_profiles needs it" in result.out


def test_wrong_use(clickwise):
    result = clickwise("doctor", "--data", "kriteo")
    assert result.code == 2 and "did you mean 'criteo'?" in result.err
    result = clickwise("doctor", "some/folder")
    assert result.code == 2 and "doctor --data criteo some/folder" in result.err
