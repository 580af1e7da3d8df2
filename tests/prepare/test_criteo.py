from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from criteo_rows import equal, line, random_lines, read, reference, rows_of, write_raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickwise.errors import PrepareError, RecipeError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import criteo as criteo_dataset
from clickwise.prepare import run

FOLDER = [HealthCheck.function_scoped_fixture]


def test_a_hand_made_file_by_hand(criteo):
    """Values: aa three times, bb and 0c twice (a tie), dd once; limit 2."""
    values = ["aa", "bb", "0c", "dd", "aa", "bb", "0c", "aa", ""]
    numbers = ["-2", "-1", "0", "", "-3", "-9", "7", "97", "65501"]
    train = [line(i % 2, {0: n, 12: 1}, {0: v, 25: "ffffffff"})
             for i, (v, n) in enumerate(zip(values, numbers, strict=True))]
    out = criteo(train, [line(1, {}, {0: "dd"}), line(0, {}, {0: "bb"})], frequency_limit=2, shuffle=False)
    found = read(out, "train")
    assert found["cat_0"].tolist() == [1, 3, 2, 0, 1, 3, 2, 1, 0]  # 0x0c < 0xbb: the tie goes to the smaller value
    assert found["cat_25"].tolist() == [1] * 9
    assert found["cat_7"].tolist() == [0] * 9
    assert found["label"].tolist() == [False, True] * 4 + [False]
    expected = [0, 0.693147, 1.098612, 0, 0, 0, 2.302585, 4.60517, 11.08987]
    assert found["numerical"][:, 0].tolist() == np.array(expected, np.float32).astype(np.float16).tolist()
    assert found["numerical"][:, 1].tolist() == [0] * 9
    assert read(out, "test")["cat_0"].tolist() == [0, 3]
    spec = FeatureSpec.load(out)
    sizes = [feature.cardinality for feature in spec.channel("categorical")]
    assert sizes == [4] + [1] * 24 + [2]
    assert (out / "train/label.bin").read_bytes() == bytes([0, 1] * 4 + [0])
    assert (out / "train/numerical.bin").stat().st_size == 9 * 13 * 2


def test_layout_and_what_is_kept_beside_the_columns(criteo):
    out = criteo(random_lines(50, 0), random_lines(20, 1), frequency_limit=3)
    spec = FeatureSpec.load(out)
    assert {file.name for file in out.iterdir()} == {"train", "test", "feature_spec.yaml", "manifest.json",
                                                     "preparation"}
    files = {"numerical.bin", "label.bin"} | {f"cat_{i}.bin" for i in range(26)}
    assert {file.name for file in (out / "train").iterdir()} == files
    assert [chunk.files[0] for chunk in spec.chunks("test")][:3] == \
        ["test/numerical.bin", "test/label.bin", "test/cat_0.bin"]
    assert list(spec.channels["numerical"]) == [f"num_{i}" for i in range(13)]
    assert list(spec.channels["categorical"]) == [f"cat_{i}" for i in range(26)]
    for index in range(26):
        vocabulary = pq.read_table(out / f"preparation/vocabularies/cat_{index}.parquet").to_pydict()
        size = spec.features[f"cat_{index}"].cardinality
        assert vocabulary["id"] == list(range(1, size))
        assert vocabulary["count"] == sorted(vocabulary["count"], reverse=True) and min(vocabulary["count"]) >= 3
    summary = json.loads((out / "preparation/summary.json").read_text())
    assert summary["rows"] == {"train": 50, "test": 20} and summary["bad_rows_skipped"] == {}
    assert (out / "preparation/recipe.yaml").exists()


@settings(max_examples=8, deadline=None, suppress_health_check=FOLDER)
@given(rows=st.integers(1, 60), seed=st.integers(0, 10**6), values=st.integers(1, 40), limit=st.integers(0, 4),
       fit_on=st.sampled_from(["train", "all"]), threads=st.integers(1, 3), shuffle=st.booleans())
def test_agrees_with_plain_python(criteo, rows, seed, values, limit, fit_on, threads, shuffle):
    train, test = random_lines(rows, seed, values), random_lines(7, seed + 1, values)
    out = criteo(train, test, frequency_limit=limit, fit_on=fit_on, shuffle=shuffle, engine={"threads": threads},
                 seed=seed, overwrite=True)
    fit = train + test if fit_on == "all" else train
    found, expected = read(out, "train"), reference(fit, train, limit)
    assert np.array_equal(rows_of(found), rows_of(expected)) if shuffle else equal(found, expected)
    assert equal(read(out, "test"), reference(fit, test, limit))


def test_one_file_or_several_plain_or_gz(criteo, tmp_path):
    lines, test = random_lines(90, 3), random_lines(5, 4)
    whole = criteo(lines, test, frequency_limit=2)
    pieces = [write_raw(tmp_path / "day_2", lines[:20]), write_raw(tmp_path / "day_10.gz", lines[20:60]),
              write_raw(tmp_path / "day_11", lines[60:])]
    (tmp_path / "day_11").write_bytes((tmp_path / "day_11").read_bytes().replace(b"\n", b"\r\n"))
    for number, files in enumerate((pieces, [str(tmp_path / "day_*")])):  # a glob takes day_2 before day_10
        several = criteo(files, test, frequency_limit=2, name=f"several_{number}")
        assert all(equal(read(several, mapping), read(whole, mapping)) for mapping in ("train", "test"))


def test_the_same_bytes_whatever_the_threads_and_the_memory(criteo):
    lines, test = random_lines(3000, 5), random_lines(100, 6)
    small = {"threads": 4, "memory_limit": "600MB", "tables": "disk"}
    outs = [criteo(lines, test, name=f"out_{i}", engine=engine, seed=seed)
            for i, (engine, seed) in enumerate([({"threads": 1}, 1), (small, 1), ({}, 2)])]
    for file in sorted((outs[0] / "train").iterdir()):
        assert file.read_bytes() == (outs[1] / "train" / file.name).read_bytes()
    one, other = read(outs[0], "train"), read(outs[2], "train")
    assert not equal(one, other) and np.array_equal(rows_of(one), rows_of(other))
    unshuffled = criteo(lines, test, name="plain", shuffle=False)
    assert not equal(one, read(unshuffled, "train"))


def test_values_seen_only_in_the_test_rows_do_not_leak(criteo):
    train = [line(0, {}, {0: "a"})] * 3
    test = [line(0, {}, {0: "b"})] * 50
    clean, leaky = criteo(train, test), criteo(train, test, fit_on="all", name="leaky")
    assert read(clean, "test")["cat_0"].tolist() == [0] * 50
    assert read(clean, "train")["cat_0"].tolist() == [1] * 3
    assert read(leaky, "test")["cat_0"].tolist() == [1] * 50
    assert read(leaky, "train")["cat_0"].tolist() == [2] * 3


@pytest.mark.parametrize("last", [2, 7, 8])
def test_the_last_file_is_halved_in_the_order_of_its_lines(criteo, tmp_path, last):
    lines, day = random_lines(30, 7), random_lines(last, 8)
    files = [write_raw(tmp_path / "day_0", lines), write_raw(tmp_path / "day_1", day)]
    out = criteo(files, split="halve_last")
    assert equal(read(out, "test"), reference(lines, day[:last // 2], 1))
    assert equal(read(out, "validation"), reference(lines, day[last // 2:], 1))
    assert len(read(out, "train")["label"]) == 30
    two = FeatureSpec.load(out / "feature_spec_train_test.yaml")  # for loaders that know these two only
    assert list(two.mappings) == ["train", "test"]


def test_a_fraction_of_the_last_file(criteo, tmp_path):
    lines, day = random_lines(30, 7), random_lines(20, 8)
    files = [write_raw(tmp_path / "day_0", lines), write_raw(tmp_path / "day_1", day)]
    out = criteo(files, split="fraction_last", fraction=0.25, shuffle=False)
    assert equal(read(out, "train"), reference(lines + day[:15], lines + day[:15], 1))
    assert equal(read(out, "test"), reference(lines + day[:15], day[15:], 1))
    alone = criteo(files[1:], split="fraction_last", fraction=0.25, shuffle=False, name="alone")
    assert equal(read(alone, "train"), reference(day[:15], day[:15], 1))


def test_a_frequency_limit_by_column(criteo):
    train = [line(0, {}, {0: "a", 1: "a"})] * 2 + [line(0, {}, {0: "b", 1: "b"})]
    out = criteo(train, frequency_limit=2, frequency_limits={"cat_1": 0}, shuffle=False)
    assert read(out, "train")["cat_0"].tolist() == [1, 1, 0]
    assert read(out, "train")["cat_1"].tolist() == [1, 1, 2]


@pytest.mark.parametrize(("values", "dtype"), [(125, "int8"), (126, "int16"), (32765, "int16"), (32766, "int32")])
def test_ids_are_as_narrow_as_the_cardinality_allows(criteo, values, dtype):
    out = criteo([line(0, {}, {0: f"{i:x}"}) for i in range(1, values + 1)], shuffle=False)
    feature = FeatureSpec.load(out).features["cat_0"]
    assert (feature.cardinality, feature.dtype) == (values + 1, dtype)
    assert (out / "train/cat_0.bin").read_bytes() == np.arange(1, values + 1, dtype=dtype).tobytes()


# ---- rows that cannot be read

GOOD = random_lines(40, 9)
BAD = {
    "a field too few": GOOD[0].rsplit("\t", 1)[0],
    "fields too many": GOOD[0] + "\tab\tcd",
    "another delimiter": GOOD[0].replace("\t", ","),
    "text for a number": line(0, {4: "many"}),
    "nan for a number": line(0, {4: "nan"}),
    "infinity for a number": line(0, {4: "inf"}),
    "a label of 2": line(2),
    "a negative label": line(-1),
    "a missing label": line(""),
    "a text label": line("yes"),
    "a value that is not hexadecimal": line(0, {}, {3: "xyz"}),
    "a value of nine digits": line(0, {}, {3: "123456789"}),
    "bytes that are no text": line(0, {}, {3: "a\x00\x01"}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("ending", ["tsv", "gz"])
def test_a_bad_row_stops_with_file_and_line(criteo, tmp_path, bad, ending):
    files = [write_raw(tmp_path / "a.tsv", GOOD[:10]),
             write_raw(tmp_path / f"b.{ending}", GOOD[10:25] + [bad] + GOOD[25:])]
    with pytest.raises(PrepareError) as caught:
        criteo(files)
    assert f"b.{ending}, line 16" in caught.value.where and caught.value.expected and caught.value.do
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tsv", f"b.{ending}"]


@pytest.mark.parametrize("ending", ["tsv", "gz"])
def test_bad_rows_are_skipped(criteo, tmp_path, ending):
    """Each kind: one more or one less would show in the rows that are left, or in how many were left out."""
    between = [row for good, bad in zip(GOOD[10:], BAD.values(), strict=False) for row in (good, bad)]
    files = [write_raw(tmp_path / "a.tsv", GOOD[:10]),
             write_raw(tmp_path / f"b.{ending}", between + GOOD[10 + len(BAD):])]
    out = criteo(files, max_bad_rows=len(BAD), shuffle=False)
    assert equal(read(out, "train"), reference(GOOD, GOOD, 1))
    assert json.loads((out / "preparation/summary.json").read_text())["bad_rows_skipped"] == {files[1]: len(BAD)}


def test_more_bad_rows_than_allowed_over_all_files(criteo, tmp_path):
    files = [write_raw(tmp_path / "a.tsv", [line(2), *GOOD]), write_raw(tmp_path / "b.tsv", [*GOOD, line(3)])]
    with pytest.raises(PrepareError, match="b.tsv, line 41"):
        criteo([files[0]], [files[1]], max_bad_rows=1)
    assert len(read(criteo([files[0]], [files[1]], max_bad_rows=2), "train")["label"]) == 40


@pytest.mark.parametrize("cut", [-8, -100])
def test_a_truncated_gz(criteo, tmp_path, cut):
    path = tmp_path / "day_0.gz"
    path.write_bytes(gzip.compress("".join(row + "\n" for row in random_lines(400, 2)).encode())[:cut])
    with pytest.raises(PrepareError, match="day_0.gz, line [0-9]+"):
        criteo([str(path)])
    out = criteo([str(path)], max_bad_rows=1, shuffle=False)
    found = read(out, "train")
    expected = random_lines(400, 2)[:len(found["label"])]
    assert 100 < len(expected) <= 400 and equal(found, reference(expected, expected, 1))


def test_decimals_are_numbers(criteo):
    out = criteo([line(0, {0: "1.5"}), line(0, {0: "1e3"})], shuffle=False)
    assert read(out, "train")["numerical"][:, 0].tolist() == np.log([4.5, 1003]).astype(np.float16).tolist()


# ---- files and recipes that cannot be


def test_files_that_are_not_there(criteo, tmp_path):
    write_raw(tmp_path / "day_0.tsv", GOOD)
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "nothing.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "text.gz").write_bytes(b"0\t1\t2\n" * 20)
    for file, found in {"day_00.tsv": "no such file", "empty.tsv": "an empty file", "": "a folder",
                        "x*": "no file of that pattern", "nothing.gz": "no rows", "text.gz": "3 fields"}.items():
        with pytest.raises(PrepareError) as caught:
            criteo([str(tmp_path / file)])
        assert found in caught.value.found
    with pytest.raises(PrepareError, match=r"did you mean .*day_0\.tsv"):
        criteo([str(tmp_path / "day_00.tsv")])
    assert not (tmp_path / "out").exists()


def test_a_file_in_train_and_test_is_refused(criteo, tmp_path):
    file = write_raw(tmp_path / "day_0", GOOD)
    with pytest.raises(PrepareError, match="a file that is in train too"):
        criteo([file], [str(tmp_path / "day_?")])


@pytest.mark.parametrize(("change", "where"), [
    ({"frequency_limt": 3}, "dataset.frequency_limt"),
    ({"frequency_limit": -1}, "dataset.frequency_limit"),
    ({"frequency_limits": {"cat_26": 2}}, "dataset.frequency_limits"),
    ({"split": "halve"}, "dataset.split"),
    ({"split": "fraction_last", "fraction": 1.5}, "dataset.fraction"),
    ({"split": "halve_last", "test": ["x"]}, "dataset.test"),
    ({"train": []}, "dataset.train"),
    ({"name": "criteoo"}, "dataset.name"),
])
def test_recipes_that_cannot_be(tmp_path, change, where):
    recipe = {"dataset": {"name": "criteo", "train": ["x"], **change}, "out": str(tmp_path / "out")}
    with pytest.raises(RecipeError) as caught:
        run(recipe, "p.yaml")
    assert caught.value.where == f"p.yaml.{where}" and (caught.value.do or caught.value.expected)


def test_sections_that_cannot_be(tmp_path):
    good = {"dataset": {"name": "criteo", "train": ["x"]}, "out": str(tmp_path / "out")}
    for recipe, where in [({**good, "enginee": {}}, "p.enginee"), ({"out": "x"}, "p.dataset"),
                          ({"dataset": good["dataset"]}, "p.out"),
                          ({**good, "engine": {"memory_limit": "100MB"}}, "p.engine.memory_limit"),
                          ({**good, "engine": {"memory_limit": "much"}}, "p.engine.memory_limit"),
                          ({**good, "engine": {"name": "sparc"}}, "p.engine.name")]:
        with pytest.raises(RecipeError) as caught:
            run(recipe, "p")
        assert caught.value.where == where


def test_halving_the_only_file_leaves_nothing_to_train_on(criteo, tmp_path):
    with pytest.raises(PrepareError, match="fraction_last"):
        criteo([write_raw(tmp_path / "day_0", GOOD)], split="halve_last")


def test_halving_the_only_file_is_refused_before_it_is_read(criteo, tmp_path, monkeypatch):
    monkeypatch.setattr(criteo_dataset.CriteoColumns, "store", None)
    with pytest.raises(PrepareError, match="dataset.train.*day_0"):
        criteo([write_raw(tmp_path / "day_0", GOOD)], split="halve_last")


def test_a_file_named_twice(criteo, tmp_path):
    files = [write_raw(tmp_path / name, GOOD) for name in ("day_0", "day_1")]
    with pytest.raises(PrepareError, match=r"dataset.train: .*day_0\n.*in train too"):
        criteo([*files, files[0]], split="halve_last")


@pytest.mark.parametrize("ending", ["tsv", "gz"])
def test_a_line_without_end_is_refused_before_it_is_held(criteo, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(criteo_dataset, "LONGEST_LINE", 1 << 22)
    with pytest.raises(PrepareError, match="4,200,00. bytes"):
        criteo([write_raw(tmp_path / f"a.{ending}", [*GOOD[:5], "1" * 4_200_000, *GOOD[5:]])], max_bad_rows=1)


@pytest.mark.parametrize("ending", ["tsv", "gz"])
def test_long_lines_are_left_out_or_read(criteo, tmp_path, ending):
    zeros = line(1, {0: "0" * 3_000_000 + "7"})
    rows = [*GOOD[:5], "1" * 3_000_000, zeros, *GOOD[5:]]
    out = criteo([write_raw(tmp_path / f"a.{ending}", rows)], max_bad_rows=1, shuffle=False)
    assert len(read(out, "train")["label"]) == len(GOOD) + 1
    (bad,) = json.loads((out / "preparation/summary.json").read_text())["bad_rows_skipped"].values()
    assert bad == 1
