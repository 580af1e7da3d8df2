"""Counts of ids: the same as counting what the loader's batches of one epoch hold, whatever the columns are made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_log import CATEGORIES, ITEMS, LENGTH, write_log

from clickwise.batch import Ragged
from clickwise.data import id_counts as module
from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.events import Histories
from clickwise.data.transcode import transcode
from clickwise.errors import DataError
from clickwise.feature_spec import ID_CHANNELS, Chunk, Feature, FeatureSpec

few = settings(max_examples=20, deadline=None)
lengths = st.none() | st.integers(1, 20)
steps = st.sampled_from((1, 50, 1 << 20))


def of_batches(dataset: Dataset, drawn: tuple[str, ...] = ()) -> dict[str, list[int]]:
    """How often every id occurs in one epoch: ids at padding do not, nor do those of the channels `drawn`, of which the
    target is drawn for negative samples only."""
    spec = dataset.spec
    counts = {feature.name: np.zeros(feature.cardinality, int) for channel in ID_CHANNELS
              for feature in spec.channel(channel)}
    for batch in dataset.train_loader(batch_size=7, seed=0, pin_memory=False).epoch(0):
        for channel in ID_CHANNELS:
            for feature, column in zip(spec.channel(channel), getattr(batch, channel), strict=True):
                ids = column.values_V[:column.offsets[-1]] if isinstance(column, Ragged) else column
                if channel in ("history", "negative_history"):
                    real = batch.history[0] != 0
                    width = min(ids.shape[1], real.shape[1])
                    ids = ids[:, -width:][real[:, -width:]]
                if channel in drawn:
                    ids = ids[batch.label.bool()] if channel == "target_item" else ids[:0]
                for i in ids.tolist():
                    counts[feature.name][i] += 1
    return {name: count.tolist() for name, count in counts.items()}


def counted(dataset: Dataset, step: int = 1 << 20) -> dict[str, list[int]]:
    names = [feature.name for channel in ID_CHANNELS for feature in dataset.spec.channel(channel)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEP", step)
        found = dataset.train_counts(names)
    assert all(count.dtype == np.int64 for count in found.values())
    return {name: count.tolist() for name, count in found.items()}


# ---- logs of events


@pytest.mark.parametrize("stored_negatives", [False, True])
@pytest.mark.parametrize("targets", [False, True])
@few
@given(users=st.integers(3, 9), seed=st.integers(0, 99), gaps=st.booleans(), unknown=st.booleans(), length=lengths,
       negative_length=lengths, step=steps)
def test_of_events(tmp_path_factory, stored_negatives, targets, users, seed, gaps, unknown, length, negative_length,
                   step):
    folder = tmp_path_factory.mktemp("log")
    write_log(folder, users=users + 5, seed=seed, targets=targets, stored_negatives=stored_negatives, gaps=gaps,
              unknown=unknown)
    dataset = Dataset(DataConfig(path=str(folder), histories=Histories(length=length, negative_length=negative_length)))
    drawn = ("negative_history",) * (not stored_negatives) + ("target_item",) * targets
    expected = of_batches(dataset, drawn)
    assert counted(dataset, step) == expected
    assert sum(expected["item_history"]) > 0 < sum(expected["item"])
    assert (sum(expected["item_negatives"]) > 0) == stored_negatives


@pytest.mark.parametrize("subset", [0.4, 20])
def test_of_the_events_that_a_part_of_the_rows_sees(tmp_path, subset):
    write_log(tmp_path, stored_negatives=True)
    dataset = Dataset(DataConfig(path=str(tmp_path), subset=subset))
    expected = of_batches(dataset, ("target_item",))
    assert counted(dataset) == expected != counted(Dataset(DataConfig(path=str(tmp_path))))
    assert sum(expected["item_history"]) > 0


@few
@given(seed=st.integers(0, 99), length=lengths, negative_length=lengths, step=steps)
def test_of_events_whose_samples_have_times_and_negatives_of_their_own(tmp_path_factory, seed, length, negative_length,
                                                                       step):
    folder = tmp_path_factory.mktemp("log")
    spec = write_log(folder, seed=seed)
    offsets, time = (np.fromfile(folder / f"events/{name}.bin", "int64") for name in ("offsets", "gap"))
    user, position = (np.fromfile(folder / f"train/{name}.bin", "int32") for name in ("user_id", "position"))
    random = np.random.default_rng(seed)
    (time[offsets[user] + position] + random.integers(0, 400, len(user))).tofile(folder / "train/time.bin")
    *chunks, events = spec.mappings["train"]
    names = spec.channels["negative_history"]
    for name, ids in zip(names, (ITEMS, CATEGORIES), strict=True):
        random.integers(0, ids, (len(user), LENGTH)).astype(spec.features[name].dtype).tofile(folder / f"{name}.bin")
        chunks.append(Chunk("split_binary", (name,), (f"{name}.bin",)))
    chunks.append(Chunk("events", tuple(name for name in events.features if name not in names),
                        (*events.files, "train/time.bin"), events.options))
    dataclasses.replace(spec, mappings={"train": tuple(chunks)}).save(folder)
    dataset = Dataset(DataConfig(path=str(folder), histories=Histories(length=length, negative_length=negative_length)))
    expected = of_batches(dataset, ("target_item",))
    assert counted(dataset, step) == expected
    assert sum(expected["gap"]) and sum(expected["item_negatives"])


# ---- columns


def features(fixed: bool) -> dict[str, Feature]:
    shape = {"dimensions": (5,)} if fixed else {"max_hotness": 5}
    ids = {"user": Feature("user", "int16", 9), "c": Feature("c", "int32", 300),
           "tags": Feature("tags", "int8", 20, max_hotness=4), "item": Feature("item", "int32", 50),
           "seen": Feature("seen", "int32", 50, **shape), "kind": Feature("kind", "int8", 4, **shape),
           "other": Feature("other", "int32", 50, **shape)}
    return {"label": Feature("label", "bool"), **ids}


CHANNELS = {"label": ("label",), "user": ("user",), "categorical": ("tags", "c"), "target_item": ("item",),
            "history": ("seen", "kind"), "negative_history": ("other",)}


def random_rows(fixed: bool, rows: int, seed: int) -> dict[str, list]:
    """Values of `features`, row by row; zeros, which are padding or missing, at any position."""
    random = np.random.default_rng(seed)
    events = [5 if fixed else int(random.integers(0, 6)) for _ in range(rows)]
    return {"label": random.integers(0, 2, rows).tolist(), "user": random.integers(0, 9, rows).tolist(),
            "c": random.integers(0, 300, rows).tolist(),
            "tags": [random.integers(0, 20, random.integers(0, 5)).tolist() for _ in range(rows)],
            "item": random.integers(0, 50, rows).tolist(),
            "seen": [(random.integers(0, 50, n) * random.integers(0, 2, n)).tolist() for n in events],
            "kind": [random.integers(0, 4, n).tolist() for n in events],
            "other": [random.integers(0, 50, n).tolist() for n in events]}


def text(value) -> str:
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("kind", ["csv", "parquet", "split_binary"])
@pytest.mark.parametrize("fixed", [False, True], ids=["lists", "fixed"])
@few
@given(rows=st.integers(7, 80), seed=st.integers(0, 99), length=lengths, negative_length=lengths, step=steps)
def test_of_columns(tmp_path_factory, kind, fixed, rows, seed, length, negative_length, step):
    folder, values = tmp_path_factory.mktemp(kind), random_rows(fixed, rows, seed)
    if kind == "csv":
        lines = (",".join(text(values[name][row]) for name in values) for row in range(rows))
        (folder / "rows").write_text("\n".join(lines) + "\n")
    else:
        pq.write_table(pa.table(values), folder / "rows")
    chunk = Chunk("csv" if kind == "csv" else "parquet", tuple(values), ("rows",))
    FeatureSpec(features(fixed), {"train": (chunk,)}, CHANNELS, {}, folder).save(folder)
    if kind == "split_binary":
        transcode(folder, folder / "out")
        folder = folder / "out"
    dataset = Dataset(DataConfig(path=str(folder), histories=Histories(length=length, negative_length=negative_length)))
    expected = of_batches(dataset)
    assert counted(dataset, step) == expected
    assert [sum(expected[name]) for name in ("user", "c", "item")] == [rows] * 3
    assert sum(expected["tags"]) == sum(map(len, values["tags"]))
    assert sum(expected["seen"]) == sum(expected["kind"]) and expected["seen"][0] == 0


def test_a_feature_that_is_no_column_is_named(tmp_path):
    write_log(tmp_path)
    dataset = Dataset(DataConfig(path=str(tmp_path)))
    assert set(dataset.train_counts(["item", "gap"])) == {"item", "gap"}
    for name in ("item*category", "label"):
        with pytest.raises(DataError, match=r"(?s)no column of its ids in .*feature_spec.yaml.*minibatch_l2=0") as got:
            dataset.train_counts(["item", name])
        assert repr(name) in str(got.value)
