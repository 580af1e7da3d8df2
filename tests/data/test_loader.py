"""The loader: every row once, every batch a pure function of seed, epoch and number, however it is read."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_dataset import small_columns, small_spec, write

from clickwise.batch import Batch, Ragged
from clickwise.data.columns import Columns, read_columns
from clickwise.data.loader import Loader
from clickwise.data.read_ahead import read_ahead
from clickwise.errors import DataError, SpecError
from clickwise.feature_spec import AUTO, Feature, FeatureSpec

SPEC = small_spec()
shuffles = st.sampled_from(["none", "batches", "rows"])
laws = settings(max_examples=60, deadline=None)


def tensors(batch: Batch) -> list[torch.Tensor]:
    columns = [batch.numerical, *batch.categorical, batch.label, batch.display]
    return [tensor for column in columns
            for tensor in ((column.values_V, column.offsets) if isinstance(column, Ragged) else (column,))]


def assert_same(first, second) -> None:
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(tensors(a), tensors(b), strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)


def displays(batches) -> np.ndarray:
    return np.concatenate([batch.display.numpy() for batch in batches])


def assert_rows_belong(batch: Batch, columns: Columns) -> None:
    """The values of a batch are those of the rows that its display numbers name."""
    rows = batch.display.numpy()
    large, tags, small = batch.categorical
    np.testing.assert_array_equal(large, columns.arrays["large"][rows])
    np.testing.assert_array_equal(small, columns.arrays["small"][rows])
    np.testing.assert_array_equal(batch.label, columns.arrays["label"][rows])
    np.testing.assert_array_equal(batch.numerical, columns.numerical[rows])
    assert tags.offsets[0] == 0 and tags.offsets[-1] == len(tags.values_V)
    for index, row in enumerate(rows):
        list_ = tags.values_V[tags.offsets[index] : tags.offsets[index + 1]]
        np.testing.assert_array_equal(list_, columns.arrays["tags"][row])


@st.composite
def cases(draw):
    """Columns of any small size, and the settings of a loader that decide what is in a batch."""
    rows = draw(st.integers(1, 150))
    settings = {"batch_size": draw(st.integers(1, 60)), "shuffle": draw(shuffles), "seed": draw(st.integers(0, 5)),
                "window_rows": draw(st.integers(1, 200)), "drop_last": draw(st.booleans())}
    settings["batch_size"] = min(settings["batch_size"], rows)
    return small_columns(rows), settings


@laws
@given(case=cases(), epoch=st.integers(0, 3))
def test_every_row_exactly_once(case, epoch):
    columns, settings = case
    loader = Loader(columns, SPEC, prefetch=0, **settings)
    batches = list(loader.epoch(epoch))
    assert len(batches) == len(loader)
    seen = displays(batches)
    assert len(set(seen.tolist())) == len(seen)
    size = settings["batch_size"]
    assert len(seen) == (columns.rows // size * size if settings["drop_last"] else columns.rows)
    assert all(len(batch) == size for batch in batches[:-1])
    for batch in batches:
        assert_rows_belong(batch, columns)


@laws
@given(case=cases(), epoch=st.integers(0, 3), data=st.data())
def test_resume_equals_uninterrupted(case, epoch, data):
    columns, settings = case
    whole = list(Loader(columns, SPEC, prefetch=0, **settings).epoch(epoch))
    start = data.draw(st.integers(0, len(whole)))
    assert_same(Loader(columns, SPEC, prefetch=0, **settings).epoch(epoch, start), whole[start:])


@laws
@given(case=cases(), epoch=st.integers(0, 3), world_size=st.integers(1, 5))
def test_shards_side_by_side_are_the_whole_batch(case, epoch, world_size):
    columns, settings = case
    whole = Loader(columns, SPEC, prefetch=0, **settings).epoch(epoch)
    shards = [Loader(columns, SPEC, prefetch=0, rank=rank, world_size=world_size, **settings).epoch(epoch)
              for rank in range(world_size)]
    for batch, *parts in zip(whole, *shards, strict=True):
        if world_size > 1:
            samples = [part.part.samples for part in parts]
            assert {part.part.of for part in parts} == {len(batch)} and sum(samples) == len(batch)
            assert max(samples) - min(samples) <= 1
            assert [len(part) for part in parts] == [max(1, each) for each in samples]  # of another, if of none
            for part in parts:
                assert_rows_belong(part, columns)
            parts = [part for part in parts if part.part.samples]
        assert torch.equal(batch.display, torch.cat([part.display for part in parts]))
        assert torch.equal(batch.numerical, torch.cat([part.numerical for part in parts]))
        ragged = [part.categorical[1] for part in parts]
        assert torch.equal(batch.categorical[1].values_V, torch.cat([part.values_V for part in ragged]))
        assert torch.equal(batch.categorical[1].lengths_B(), torch.cat([part.lengths_B() for part in ragged]))
        for part in parts:
            assert_rows_belong(part, columns)


@pytest.mark.parametrize("shuffle", ["none", "batches", "rows"])
@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_prefetch_changes_nothing(shuffle, prefetch):
    columns = small_columns(500)
    settings = {"batch_size": 32, "shuffle": shuffle, "window_rows": 100}
    plain = Loader(columns, SPEC, prefetch=0, **settings)
    ahead = Loader(columns, SPEC, prefetch=prefetch, **settings)
    for epoch in range(2):  # the second epoch gets the memory of the first
        assert_same(ahead.epoch(epoch), plain.epoch(epoch))


@pytest.mark.parametrize("shuffle", ["none", "batches", "rows"])
def test_mapped_files_equal_arrays_in_memory(tmp_path, shuffle):
    columns = small_columns(300)
    spec = write(small_spec(tmp_path), columns)
    settings = {"batch_size": 32, "shuffle": shuffle, "window_rows": 64}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written
        mapped = list(Loader(read_columns(spec, "train"), spec, **settings).epoch(0))
    assert_same(mapped, Loader(columns, SPEC, **settings).epoch(0))


def test_no_shuffle_keeps_the_order_of_the_file():
    assert displays(Loader(small_columns(100), SPEC, batch_size=30).epoch(4)).tolist() == list(range(100))


def test_batches_shuffle_keeps_rows_together_and_the_short_batch_last():
    batches = [batch.display.tolist() for batch in Loader(small_columns(100), SPEC, batch_size=30,
                                                          shuffle="batches").epoch(1)]
    assert sorted(batches) == [list(range(s, min(s + 30, 100))) for s in (0, 30, 60, 90)]
    assert len(batches[-1]) == 10


@pytest.mark.parametrize("shuffle", ["batches", "rows"])
def test_epochs_and_seeds_differ_and_repeat(shuffle):
    columns = small_columns(2000)

    def order(seed, epoch):
        return tuple(displays(Loader(columns, SPEC, batch_size=16, shuffle=shuffle, window_rows=128, seed=seed)
                              .epoch(epoch)).tolist())

    orders = {(seed, epoch): order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    assert all(order(*key) == value for key, value in orders.items())


def test_rows_shuffle_is_uniform_when_the_window_holds_all():
    """Every row stands at every position equally often: the mean position over many epochs is near the middle."""
    loader = Loader(small_columns(20), SPEC, batch_size=20, shuffle="rows", prefetch=0)
    orders = np.stack([displays(loader.epoch(epoch)) for epoch in range(400)])
    counts = np.stack([np.bincount(orders[:, index], minlength=20) for index in range(20)])
    assert counts.min() > 0 and counts.max() < 50  # 20 expected, standard deviation 4.4


def test_rows_shuffle_mixes_blocks_from_all_over_the_file():
    loader = Loader(small_columns(4096), SPEC, batch_size=64, shuffle="rows", window_rows=256)
    first = next(loader.epoch(0)).display.numpy()
    assert len(set((first // 16).tolist())) > 8  # blocks of 256 / 16 rows
    assert first.max() - first.min() > 1024


@pytest.mark.parametrize("prefetch", [0, 2])
def test_state_between_batches_continues_with_the_next(prefetch):
    columns = small_columns(100)
    settings = {"batch_size": 16, "shuffle": "rows", "window_rows": 50, "prefetch": prefetch}
    whole = [batch for epoch in range(2) for batch in Loader(columns, SPEC, **settings).epoch(epoch)]
    loader = Loader(columns, SPEC, **settings)
    seen = []
    for stop in (3, 4, 5, 2):  # 3, the rest of epoch 0, 5, the rest of epoch 1
        for count, batch in enumerate(loader, 1):
            seen.append(batch)
            if count == stop:
                break
        state, loader = loader.state_dict(), Loader(columns, SPEC, **settings)
        loader.load_state_dict(state)
    assert_same(seen, whole)
    assert (state["epoch"], state["batch"]) == (2, 0)


@pytest.mark.parametrize("change", [{"batch_size": 17}, {"seed": 1}, {"shuffle": "batches"}, {"window_rows": 51},
                                    {"drop_last": True}])
def test_a_state_of_other_settings_is_refused(change):
    settings = {"batch_size": 16, "shuffle": "rows", "window_rows": 50}
    state = Loader(small_columns(100), SPEC, **settings).state_dict()
    with pytest.raises(DataError, match=next(iter(change))):
        Loader(small_columns(100), SPEC, **{**settings, **change}).load_state_dict(state)


def test_a_state_of_other_data_is_refused_but_another_world_size_is_not():
    columns = small_columns(100)
    state = Loader(columns, SPEC, batch_size=16).state_dict()
    Loader(columns, SPEC, batch_size=16, rank=1, world_size=2).load_state_dict(state)
    with pytest.raises(DataError, match="rows = 100"):
        Loader(small_columns(99), SPEC, batch_size=16).load_state_dict(state)
    with pytest.raises(DataError, match="spec"):
        Loader(columns, dataclasses.replace(SPEC, metadata={"x": 1}), batch_size=16).load_state_dict(state)


def test_ids_keep_their_type_and_tensors_can_be_written():
    batch = next(Loader(small_columns(50), SPEC, batch_size=20, shuffle="rows").epoch(0))
    assert [column.dtype for column in (batch.categorical[0], batch.categorical[2])] == [torch.int32, torch.int8]
    assert batch.categorical[1].values_V.dtype == torch.int16 and batch.categorical[1].offsets.dtype == torch.int64
    assert batch.numerical.dtype == torch.float16 and batch.label.dtype == torch.bool
    assert batch.numerical.shape == (20, 2)
    for tensor in tensors(batch):
        tensor.zero_()


def test_an_array_made_of_a_tensor_keeps_its_memory_too():
    loader = Loader(small_columns(400), SPEC, batch_size=20, prefetch=0)
    displays = [batch.display.numpy()[3:7] for batch in loader.epoch(0)]
    assert [display.tolist() for display in displays] == [list(range(s + 3, s + 7)) for s in range(0, 400, 20)]


@pytest.mark.parametrize("shuffle", ["none", "rows"])
def test_memory_of_a_held_batch_is_never_used_again(shuffle):
    columns = small_columns(400)
    loader = Loader(columns, SPEC, batch_size=20, shuffle=shuffle, window_rows=40)
    held = []
    for epoch in range(4):
        for number, batch in enumerate(loader.epoch(epoch)):
            if number % 3 == 0:
                held.append(batch if number % 2 else Batch(display=batch.display, label=batch.label))
    for batch in held:
        np.testing.assert_array_equal(batch.label, columns.arrays["label"][batch.display.numpy()])
        if batch.categorical:
            assert_rows_belong(batch, columns)


def test_missing_channels_are_none_and_no_numericals_are_fine():
    spec = FeatureSpec({"c": Feature("c", "int8", 5)}, {}, {"categorical": ["c"]})
    columns = Columns(3, {"c": np.array([4, 0, 1], "int8")})
    (batch,) = Loader(columns, spec, batch_size=8).epoch(0)
    assert batch.categorical[0].tolist() == [4, 0, 1]
    assert batch.numerical is None and batch.label is None and batch.display is None


def test_no_categoricals_are_fine():
    spec = FeatureSpec({"x": Feature("x", "float32")}, {}, {"numerical": ["x"]})
    (batch,) = Loader(Columns(2, {}, np.ones((2, 1), "float32")), spec, batch_size=8).epoch(0)
    assert batch.categorical == () and batch.numerical.shape == (2, 1)


def test_wrong_settings():
    columns = small_columns(10)
    wrong_settings = [(dict(batch_size=0), "batch_size"), (dict(batch_size=4, shuffle="row"), "did you mean"),
             (dict(batch_size=4, rank=2, world_size=2), "rank"), (dict(batch_size=4, prefetch=-1), "-1"),
             (dict(batch_size=11, drop_last=True), "10 rows")]
    for wrong, words in wrong_settings:
        with pytest.raises(DataError, match=words):
            Loader(columns, SPEC, **wrong)
    with pytest.raises(DataError, match="start_batch"):
        list(Loader(columns, SPEC, batch_size=4).epoch(0, 4))
    with pytest.raises(DataError, match="'tags'"):
        Loader(dataclasses.replace(columns, arrays={"large": columns.arrays["large"]}), SPEC, batch_size=4)
    auto = FeatureSpec({"c": Feature("c", "int64", AUTO)}, {}, {"categorical": ["c"]})
    with pytest.raises(SpecError, match="transcode"):
        Loader(Columns(1, {"c": np.zeros(1, "int64")}), auto, batch_size=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shuffle", ["none", "rows"])
def test_pinned_batches_arrive_on_the_gpu(shuffle):
    columns = small_columns(2000)
    loader = Loader(columns, SPEC, batch_size=100, shuffle=shuffle, window_rows=300, pin_memory=True)
    arrived = []
    for batch in loader.epoch(0):
        assert all(tensor.is_pinned() for tensor in tensors(batch))
        arrived.append(batch.to("cuda"))
    assert_same([batch.to("cpu") for batch in arrived], Loader(columns, SPEC, batch_size=100, shuffle=shuffle,
                                                              window_rows=300).epoch(0))


# ---- threads


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "clickwise-read-ahead"]


@pytest.mark.parametrize("shuffle", ["none", "rows"])
@pytest.mark.parametrize("taken", [1, 3, 16])
def test_threads_end_when_the_consumer_stops(shuffle, taken):
    loader = Loader(small_columns(256), SPEC, batch_size=16, shuffle=shuffle, window_rows=32)
    batches = loader.epoch(0)
    assert not readers()  # none before the first batch is asked for
    list(itertools.islice(batches, taken))
    batches.close()
    assert not readers()
    for _ in loader:
        break
    gc.collect()
    assert not readers()


def test_an_error_in_the_thread_reaches_the_consumer_in_its_place():
    def items():
        yield from (1, 2)
        raise OSError("the disk is gone")

    taken = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in read_ahead(items(), 4):
            taken.append(item)
    assert taken == [1, 2] and not readers()


def test_an_error_while_reading_reaches_the_consumer(monkeypatch):
    loader = Loader(small_columns(100), SPEC, batch_size=10, shuffle="rows", window_rows=20)
    read = loader._read_window

    def failing(segments, orders):
        if calls.append(1) or len(calls) == 3:
            raise OSError("input/output error")
        return read(segments, orders)

    calls: list[int] = []
    monkeypatch.setattr(loader, "_read_window", failing)
    taken = []
    with pytest.raises(OSError, match="input/output error"):
        for batch in loader.epoch(0):
            taken.append(batch)
    assert len(taken) == 4 and not readers()


def test_read_ahead_stays_within_its_depth():
    made = []
    items = read_ahead((made.append(i) or i for i in range(100)), 3)
    for taken in range(10):
        assert next(items) == taken
        assert len(made) <= taken + 1 + 3 + 1  # taken, waiting in the queue, one in the thread's hand
    items.close()
    assert len(made) < 100
