from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import read_columns
from clickwise.data.synthetic import (
    VARIANTS,
    PowerLaw,
    SignalConfig,
    SyntheticConfig,
    generate,
    in_memory,
    power_law_ids,
    raw_criteo,
    synthesize,
    synthesize_raw_criteo,
    synthetic_columns,
    synthetic_spec,
    write,
)
from clickwise.errors import DataError, RecipeError, UsageError
from clickwise.feature_spec import Feature, FeatureSpec, split_binary_chunks
from clickwise.recipe import parse

SIZES = (1, 2, 3, 97, 8_165_896)
laws = st.builds(PowerLaw, st.integers(1, 10**9), st.sampled_from((0.0, 0.5, 0.999999, 1.0, 1.05, 1.45, 2.5)))


# ---- power law


@pytest.mark.parametrize(("size", "expected"), [(8_165_896, 0.268), (97, 0.307)])
def test_share_of_the_most_frequent_id(size, expected):
    assert PowerLaw(size, 1.45).probability(0) == pytest.approx((1 - 2**-0.45) / (1 - (size + 1) ** -0.45))
    assert PowerLaw(size, 1.45).probability(0) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.45])
@pytest.mark.parametrize("size", SIZES)
def test_drawn_ids_follow_the_law(size, alpha):
    rows = 200_000
    ids = power_law_ids(np.random.default_rng(size), rows, size, alpha)
    law = PowerLaw(size, alpha)
    assert len(ids) == rows and ids.min() >= 0 and ids.max() < size
    for bound in (0, 1, 2, 10, 96, 1000, 100_000, 8_000_000):
        share, expected = np.mean(ids <= bound), min(float(law.at_most(bound)), 1.0)
        assert share == pytest.approx(expected, abs=4.5 * np.sqrt(expected * (1 - expected) / rows) + 1e-9)


def test_uniform_and_logarithmic_laws():
    assert PowerLaw(50, 0.0).probability(np.arange(50)) == pytest.approx(np.full(50, 0.02))
    assert PowerLaw(50, 1.0).at_most(6) == pytest.approx(np.log(8) / np.log(51))
    assert PowerLaw(50, 1.0).probability(np.arange(50)) == pytest.approx(
        PowerLaw(50, 1.00001).probability(np.arange(50)), rel=1e-4)


@given(laws)
@settings(max_examples=30, deadline=None)
def test_the_masses_add_up_to_one(law):
    ids = np.arange(min(law.size, 1000))
    assert law.probability(ids).sum() == pytest.approx(law.at_most(ids[-1]))
    assert law.at_most(law.size - 1) == pytest.approx(1)


@given(laws, st.floats(0, 1, exclude_max=True))
@settings(max_examples=100, deadline=None)
def test_quantile_inverts_the_cumulative_law(law, beyond):
    chosen = law.quantile(np.array([beyond]))[0]
    assert 0 <= chosen < law.size
    low, high = (1 - law.at_most(chosen), 1 - law.at_most(chosen - 1) if chosen else 1.0)
    assert low - 1e-9 <= beyond <= high + 1e-9


@given(laws, st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_the_guide_agrees_with_the_formula(law, beyond):
    beyond = np.array(beyond)
    guided = law.guide[(beyond * 65536).astype(int)]
    sure = guided >= 0
    assert np.array_equal(guided[sure], law.quantile(beyond)[sure])


def test_every_id_of_a_large_table_can_occur():
    ids = power_law_ids(np.random.default_rng(5), 2_000_000, 292_775_614, 1.45)
    tail = ids[ids > 1_000_000]
    assert tail.max() > 250_000_000
    for divisor in (2, 3, 7, 1024):  # a lattice of coarse floats would miss residues
        counts = np.bincount(tail % divisor, minlength=divisor)
        expected = len(tail) / divisor
        assert ((counts - expected) ** 2 / expected).sum() < divisor + 6 * np.sqrt(2 * divisor)


def test_unique_rows_of_a_criteo_batch():
    generator = np.random.default_rng(1)
    unique = sum(len(np.unique(power_law_ids(generator, 65_536, size, 1.45))) for size in VARIANTS["criteo_t15"])
    assert unique == pytest.approx(49_064, rel=0.01)


@pytest.mark.parametrize(("size", "dtype"), [(126, "int8"), (127, "int16"), (32766, "int16"), (32767, "int32")])
def test_ids_have_the_narrow_type_of_the_stored_column(size, dtype):
    assert power_law_ids(np.random.default_rng(0), 7, size, 1.45).dtype == dtype


def test_a_law_of_no_ids_is_refused():
    with pytest.raises(DataError, match="size 0"):
        PowerLaw(0, 1.45)


# ---- specs


def test_criteo_variants_have_the_published_totals():
    assert {name: sum(sizes) for name, sizes in VARIANTS.items()} == {
        "criteo_t15": 32_709_138, "criteo_t3": 177_944_291, "criteo_t0": 882_774_575}
    assert all(len(sizes) == 26 for sizes in VARIANTS.values())


@pytest.fixture
def odd_spec() -> FeatureSpec:
    """Names, paths and types that no default layout would have; a multi-hot feature and a display."""
    features = {feature.name: feature for feature in (
        Feature("prix", "float32"), Feature("age", "float32"), Feature("wide.bin", "int64", 5),
        Feature("tags", "int16", 300, 4), Feature("clicked?", "int8"), Feature("page", "int32"))}
    channels = {"numerical": ("prix", "age"), "categorical": ("tags", "wide.bin"), "label": ("clicked?",),
                "display": ("page",)}
    chunks = list(split_binary_chunks(features, channels, "learn"))
    chunks[0] = type(chunks[0])("split_binary", ("prix", "age"), ("elsewhere/numbers.raw",))
    return FeatureSpec(features, {"learn": tuple(chunks)}, channels)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(generate, "CHUNK_ROWS", 1000)
    monkeypatch.setattr(raw_criteo, "CHUNK", 1000)


def same(left, right) -> bool:
    if isinstance(left, RaggedArray):
        return same(left.values, right.values) and same(left.offsets, right.offsets)
    return left.dtype == right.dtype and np.array_equal(left, right)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- columns on disk


def test_what_is_written_is_what_is_made_in_memory(tmp_path, odd_spec, small_chunks):
    figures = synthesize(odd_spec, {"learn": 3500, "test": 10}, tmp_path / "out", seed=4)
    assert (tmp_path / "out/elsewhere/numbers.raw").stat().st_size == 3500 * 2 * 4
    loaded = FeatureSpec.load(tmp_path / "out")
    for mapping, rows in (("learn", 3500), ("test", 10)):
        on_disk = read_columns(loaded, mapping)
        made, ceiling = in_memory(odd_spec, rows, 4, mapping=mapping)
        assert on_disk.rows == made.rows == rows == figures[mapping]["rows"]
        assert same(on_disk.numerical, made.numerical)
        assert set(on_disk.arrays) == set(made.arrays) == {"tags", "wide.bin", "clicked?", "page"}
        assert all(same(on_disk.arrays[name], made.arrays[name]) for name in made.arrays)
        assert figures[mapping] == ceiling.figures() == loaded.metadata["synthetic"][mapping]


def test_made_columns_keep_their_ranges(odd_spec, small_chunks):
    columns, _ = in_memory(odd_spec, 5000, 1)
    bags = columns.arrays["tags"]
    lengths = np.diff(bags.offsets)
    assert set(lengths) == {0, 1, 2, 3, 4} and len(bags.values) == bags.offsets[-1]
    assert 0 <= bags.values.min() and bags.values.max() < 300
    assert set(columns.arrays["wide.bin"]) == set(range(5))
    assert set(columns.arrays["clicked?"]) == {0, 1}
    assert 0 <= columns.numerical.min() and columns.numerical.max() < 1
    assert np.array_equal(columns.arrays["page"], np.arange(5000) // 8)


def test_threads_do_not_change_a_byte(tmp_path, odd_spec, small_chunks):
    for threads in (1, 3):
        synthesize(odd_spec, {"train": 7300, "test": 900}, tmp_path / str(threads), threads=threads)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3")


def test_criteo_layout(tmp_path):
    synthesize("criteo_t15", {"train": 100, "test": 50}, tmp_path / "out")
    files = files_of(tmp_path / "out")
    assert len(files) == 58 and "manifest.json" in files
    # 8 int8 + 9 int16 + 9 int32 ids, 13 float16 and a label: 89 bytes a row.
    assert sum(len(content) for name, content in files.items() if name.startswith("train/")) == 89 * 100
    assert len(files["train/numerical.bin"]) == 26 * 100 and set(files["train/label.bin"]) == {0, 1}


def test_mappings_and_seeds_differ_but_share_one_truth():
    config = SyntheticConfig(numericals=1, cardinalities=(30, 30), rows={"train": 500, "test": 500})
    train, test = (synthetic_columns(config, mapping) for mapping in ("train", "test"))
    other = synthetic_columns(SyntheticConfig(**{**vars(config), "seed": 2}), "train")
    assert not same(train.arrays["cat_0"], test.arrays["cat_0"])
    assert not same(train.arrays["cat_0"], other.arrays["cat_0"])
    assert same(train.arrays["cat_0"], synthetic_columns(config, "train").arrays["cat_0"])
    assert synthetic_spec(config).fingerprint() != synthetic_spec(SyntheticConfig(**{**vars(config), "seed": 2})
                                                                 ).fingerprint()


@pytest.mark.parametrize(("numericals", "cardinalities"), [(0, (9, 3)), (3, ())])
def test_datasets_without_one_kind_of_feature(tmp_path, numericals, cardinalities):
    config = SyntheticConfig(numericals=numericals, cardinalities=cardinalities, rows={"train": 300})
    columns = synthetic_columns(config, "train")
    assert columns.rows == 300 and len(columns.arrays) == len(cardinalities) + 1
    assert (columns.numerical is None) == (numericals == 0)
    synthesize(synthetic_spec(config), {"train": 300}, tmp_path / "out")
    assert read_columns(FeatureSpec.load(tmp_path / "out"), "train").rows == 300


# ---- what can go wrong


def test_a_failure_leaves_nothing(tmp_path, odd_spec, small_chunks, monkeypatch):
    whole = write.ChunkWriter.write

    def full(self, columns):
        if self.name == "tags":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, columns)

    monkeypatch.setattr(write.ChunkWriter, "write", full)
    with pytest.raises(DataError, match="No space left"):
        synthesize(odd_spec, {"train": 5000}, tmp_path / "out", threads=2)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        synthesize("criteo_t15", {"train": 10}, tmp_path)
    with pytest.raises(DataError, match="not empty"):
        synthesize_raw_criteo(tmp_path, 10)
    assert (tmp_path / "precious").read_text() == "mine"


def test_files_outside_the_folder_are_refused(tmp_path, odd_spec):
    chunks = list(odd_spec.mappings["learn"])
    chunks[0] = type(chunks[0])("split_binary", chunks[0].features, ("../escape.bin",))
    spec = FeatureSpec(odd_spec.features, {"learn": tuple(chunks)}, odd_spec.channels)
    with pytest.raises(DataError, match="inside the folder"):
        synthesize(spec, {"learn": 10}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("change", "words"), [
    ({"spec_or_variant": "criteo_t51"}, "criteo_t15"),
    ({"signal": "additiv"}, "additive"),
    ({"signal": SignalConfig(features=("cat_99",))}, "cat_9"),
    ({"signal": SignalConfig(kind="pair", features=("cat_9",))}, "two one-hot"),
    ({"rows": {}}, "at least one mapping"),
    ({"seed": -1}, "0 or more"),
    ({"alpha": -1.0}, "uniform"),
])
def test_what_cannot_be_made_is_said(tmp_path, change, words):
    arguments = {"spec_or_variant": "criteo_t15", "rows": {"train": 10}, "out_folder": tmp_path / "out", **change}
    with pytest.raises((DataError, RecipeError, UsageError), match=words):
        synthesize(**arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("section", "words"), [
    ({"cardinalities": [0]}, "at least 1"), ({"max_hotness": [3]}, "one number for each"),
    ({"rows": {"train": 0}}, "at least one row"), ({"signal": {"strength": -1}}, "0 to 16"),
    ({"signal": {"kind": "pairs"}}, "'pair'"), ({"cardinality": 3}, "cardinalities"),
])
def test_a_wrong_section_is_refused(section, words):
    with pytest.raises(RecipeError, match=words):
        parse(SyntheticConfig, section, "recipe.yaml.data.synthetic")


# ---- raw logs


def test_raw_logs_have_the_format_of_criteo(tmp_path, small_chunks):
    figures = synthesize_raw_criteo(tmp_path / "raw", 2500, files=2, seed=3)
    lines = [line for day in (0, 1) for line in (tmp_path / f"raw/day_{day}").read_text().splitlines()]
    fields = [line.split("\t") for line in lines]
    assert len(lines) == 2500 == figures["rows"] and {len(row) for row in fields} == {40}
    assert np.mean([row[0] == "1" for row in fields]) == pytest.approx(figures["click_rate"], abs=1e-6)
    integers = [[int(row[index]) for row in fields if row[index]] for index in range(1, 14)]
    assert min(map(min, integers)) == -3 and max(map(max, integers)) > 1000
    for index in range(14, 40):
        words = {row[index] for row in fields}
        assert all(len(word) == 8 and int(word, 16) >= 0 and word == word.lower() for word in words - {""})
    empty = np.mean([[not field for field in row] for row in fields], axis=0)
    assert empty[0] == 0 and empty[1:].min() > 0.005 and empty.max() < 0.6


def test_raw_logs_do_not_depend_on_threads(tmp_path, small_chunks):
    for threads in (1, 2):
        synthesize_raw_criteo(tmp_path / str(threads), 3300, files=3, threads=threads)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9))
def test_hexadecimal_text(numbers):
    text = raw_criteo.hex_text(np.array(numbers, np.uint32)).tobytes()
    assert text.decode() == "".join(f"{number:08x}" for number in numbers)


def test_two_ids_of_a_column_never_share_a_hash():
    ids = np.arange(1_000_000)
    assert len(np.unique(raw_criteo.hidden_hash(1, "cat_0", ids))) == len(ids)
    assert not np.array_equal(raw_criteo.hidden_hash(1, "cat_0", ids), raw_criteo.hidden_hash(1, "cat_1", ids))
