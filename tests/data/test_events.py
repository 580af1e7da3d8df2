"""Logs of events: windows as a loop over rows would cut them, negatives, and what stands in the way of either."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_log import ITEMS, LENGTH, category_of, padded, write_log

from clickwise.data.check import check_columns
from clickwise.data.columns import read_columns
from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.events import EventLog, Histories, RowNumbers, Samples
from clickwise.data.events_windows import draws_of, gap_ids
from clickwise.data.loader import Loader
from clickwise.data.transcode import transcode
from clickwise.errors import DataError, RecipeError, SpecError
from clickwise.feature_spec import Chunk, Feature, FeatureSpec
from clickwise.feature_spec.draws import OwnItems, window
from clickwise.models.din import DIN
from clickwise.recipe import parse

laws = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("log"))


def with_histories(columns, **changes):
    return dataclasses.replace(columns, events=dataclasses.replace(
        columns.events, histories=dataclasses.replace(columns.events.histories, **changes)))


def whole(spec, mapping="train", epoch=0, **changes):
    """All rows of a mapping as one batch, in their order."""
    columns = with_histories(read_columns(spec, mapping), **changes)
    (batch,) = Loader(columns, spec, batch_size=columns.rows, prefetch=0).epoch(epoch)
    return batch


def raw(spec, mapping):
    """Offsets, items, times, and user, position and label of every row."""
    files = ("events/offsets.bin", "int64"), ("events/item_history.bin", "int32"), ("events/gap.bin", "int64"), \
        (f"{mapping}/user_id.bin", "int32"), (f"{mapping}/position.bin", "int32"), (f"{mapping}/label.bin", "bool")
    return [np.fromfile(spec.folder / name, dtype) for name, dtype in files]


@pytest.mark.parametrize("mapping", ["train", "test"])
@pytest.mark.parametrize("length", [1, 4, LENGTH, 20, 500])
def test_windows_are_those_of_a_loop_over_rows(spec, mapping, length):
    offsets, item, time, user, position, label = raw(spec, mapping)
    batch = whole(spec, mapping, length=length)
    assert batch.user[0].tolist() == user.tolist()
    for row, (u, p) in enumerate(zip(user, position, strict=True)):
        events = item[offsets[u] : offsets[u] + p].tolist()
        times = time[offsets[u] : offsets[u] + p]
        gaps = [min(1 + int((time[offsets[u] + p] - t) // 10).bit_length(), 7) for t in times]
        assert batch.history[0][row].tolist() == padded(events, length)
        assert batch.history[1][row].tolist() == padded([int(category_of(i)) for i in np.array(events, int)], length)
        assert batch.history[2][row].tolist() == padded([g * (i != 0) for g, i in zip(gaps, events, strict=True)],
                                                        length)
        if label[row]:
            came = item[offsets[u] + p]
            assert (batch.target_item[0][row], batch.target_item[1][row]) == (came, int(category_of(came)))


@given(count=st.integers(1, 50), length=st.integers(1, 60), data=st.data())
@laws
def test_a_window_is_the_values_before_its_end(count, length, data):
    values = np.arange(1, count + 1)
    end = data.draw(st.lists(st.integers(0, count), min_size=1, max_size=8))
    found = window(values, np.array(end), length)
    for row, index in enumerate(end):
        kept = min(index, length)
        assert found[row, length - kept :].tolist() == values[index - kept : index].tolist()


@given(gap=st.integers(-5, 2**40), unit=st.integers(1, 10**6), cardinality=st.integers(2, 60))
@laws
def test_gaps_double_from_id_to_id(gap, unit, cardinality):
    units = max(gap, 0) // unit
    expected = min(1 if units == 0 else 2 + math.floor(math.log2(units)), cardinality - 1)
    assert gap_ids(np.array([gap]), unit, cardinality)[0] == expected


# ---- negatives


def history_sets(spec, mapping):
    """Every user's items up to and with the last target of the mapping."""
    offsets, item, _, user, position, _ = raw(spec, mapping)
    reach = {u: 0 for u in range(len(offsets) - 1)}
    for u, p in zip(user.tolist(), position.tolist(), strict=True):
        reach[u] = max(reach[u], p + 1)
    return {u: set(item[offsets[u] : offsets[u] + n].tolist()) for u, n in reach.items()}


@pytest.mark.parametrize("rule", ["uniform", "popularity"])
@pytest.mark.parametrize("mapping", ["train", "test"])
def test_negatives_are_items_that_the_user_never_had_and_known_unless_the_event_is_none(spec, mapping, rule):
    own = history_sets(spec, mapping)
    offsets, item, *_, position, _ = raw(spec, mapping)
    unknown_targets = 0
    known = set().union(*own.values()) - {0}
    for epoch in range(3):
        batch = whole(spec, mapping, epoch, negatives=rule)
        for row in range(len(batch)):
            had = own[int(batch.user[0][row])]
            drawn = batch.negative_history[0][row].numpy()
            assert ((drawn != 0) == (batch.history[0][row].numpy() != 0)).all()
            assert not had & set(drawn.tolist()) - {0} and set(drawn.tolist()) <= known | {0}
            assert batch.negative_history[1][row].tolist() == category_of(drawn).tolist()
            if not batch.label[row]:
                target, event = int(batch.target_item[0][row]), offsets[batch.user[0][row]] + position[row]
                comes = event < offsets[batch.user[0][row] + 1]
                assert target in ({0} if comes and item[event] == 0 else known - had)
                unknown_targets += target == 0
                assert int(batch.target_item[1][row]) == category_of(np.array(target))
    assert unknown_targets or mapping == "test"


def a_log(items, users=1):
    """A log in which every user has the same items."""
    items = np.tile(np.array(items, "int32"), users)
    return EventLog(np.arange(users + 1) * (len(items) // users), {"i": items})


def draws(log, rule, *, rows=4000, epoch=0, redraw=True, position=None, seed=0, user=0):
    position = np.full(rows, len(log) if position is None else position)
    samples = Samples(log, np.full(rows, user), position, RowNumbers(0, rows),
                      histories=Histories(negatives=rule, redraw=redraw))
    return draws_of(samples, [log.features["i"]], seed, 9).draw(epoch, samples.user, np.arange(rows), "history", 5)[0]


def test_popularity_draws_an_item_as_often_as_it_occurs():
    log = EventLog(np.array([0, 1, 11]), {"i": np.array([9, 1, 1, 1, 1, 1, 2, 2, 3, 9, 0], "int32")})
    both = np.array([0, 1])
    samples = Samples(log, both, np.array([1, 10]), RowNumbers(0, 2), histories=Histories(negatives="popularity"))
    found = Counter(draws_of(samples, [log.features["i"]], 0, 9).draw(
        0, np.zeros(20_000, int), np.arange(20_000), "target", 1)[0].reshape(-1).tolist())
    assert set(found) == {1, 2, 3}  # 9 is the user's own, 0 is unknown
    assert [found[item] / 20_000 for item in (1, 2, 3)] == pytest.approx([5 / 8, 2 / 8, 1 / 8], abs=0.02)


def test_uniform_draws_every_item_alike():
    log = EventLog(np.array([0, 1, 9]), {"i": np.array([9, 1, 1, 1, 1, 1, 2, 2, 3], "int32")})
    samples = Samples(log, np.array([0, 1]), np.array([1, 8]), RowNumbers(0, 2),
                      histories=Histories(negatives="uniform"))
    found = Counter(draws_of(samples, [log.features["i"]], 0, 9).draw(
        0, np.zeros(20_000, int), np.arange(20_000), "target", 1)[0].reshape(-1).tolist())
    assert [found[item] / 20_000 for item in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.02)


def test_compat_draws_own_items_and_those_of_later_mappings_too():
    log = a_log([1, 2, 3, 4])
    assert set(np.unique(draws(log, "compat", position=1))) == {1, 2, 3, 4}
    assert (draws(log, "compat", epoch=0) == draws(log, "compat", epoch=7)).all()  # never redrawn


def test_nothing_of_a_later_mapping_is_drawn():
    log = EventLog(np.array([0, 2, 5]), {"i": np.array([1, 2, 5, 6, 7], "int32")})
    samples = Samples(log, np.array([0, 1]), np.array([0, 1]), RowNumbers(0, 2),
                      histories=Histories(negatives="popularity"))
    drawn = draws_of(samples, [log.features["i"]], 0, 9).draw(0, np.zeros(2000, int), np.arange(2000), "target", 1)[0]
    assert set(np.unique(drawn)) == {5, 6}


def unknown_targets(rule, rows=3000):
    """What is drawn beside events of unknown items: user 0 has one, user 1 two, user 2 one after its last row."""
    items, own = np.array([5, 0, 0, 6, 0, 7, 0], "int32"), np.array([1, 2, 3, 4, 5, 6, 7])  # `own` tells the events
    log = EventLog(np.array([0, 2, 5, 7]), {"i": items})
    samples = Samples(log, np.array([0, 1, 2]), np.array([1, 2, 0]), RowNumbers(0, 3),
                      histories=Histories(negatives=rule))
    negatives = draws_of(samples, [items, own], 0, 9)
    user, position = np.repeat([0, 1, 1, 2], rows), np.repeat([1, 0, 1, 0], rows)
    drawn = negatives.draw_targets(0, user, position, np.arange(4 * rows))
    again = negatives.draw_targets(0, user[::-1], position[::-1], np.arange(4 * rows)[::-1])
    assert all((one == other[::-1]).all() for one, other in zip(drawn, again, strict=True))
    return [(set(ids.tolist()), Counter(events.tolist())) for ids, events in
            zip(*(np.split(values, 4) for values in drawn), strict=True)]


@pytest.mark.parametrize("rule", ["popularity", "uniform"])
def test_beside_an_unknown_item_another_unknown_one_is_drawn(rule):
    of_0, of_1, known_of_1, of_2 = unknown_targets(rule)
    ids, events = of_0
    assert ids == {0} and {*events} == {3, 5} and events[3] / 3000 == pytest.approx(0.5, abs=0.03)  # both of user 1
    assert of_1 == ({0}, {2: 3000})
    assert 0 not in known_of_1[0] and 0 not in of_2[0]


def test_compat_draws_unknown_items_of_all_users_beside_unknown_ones():
    (ids, events), *_ = unknown_targets("compat")
    assert ids == {0} and {*events} == {2, 3, 5, 7}
    assert [count / 3000 for count in events.values()] == pytest.approx([1 / 4] * 4, abs=0.03)


def test_a_user_who_alone_had_unknown_items_gets_one_of_them():
    log = EventLog(np.array([0, 3]), {"i": np.array([4, 0, 0], "int32")})
    samples = Samples(log, np.array([0]), np.array([2]), RowNumbers(0, 1), histories=Histories(negatives="popularity"))
    drawn, = draws_of(samples, [log.features["i"]], 0, 9).draw_targets(0, np.zeros(50, int), np.ones(50, int),
                                                                        np.arange(50))
    assert not drawn.any()


def test_a_user_who_had_everything_gets_some_item():
    assert set(np.unique(draws(a_log([1, 2, 3]), "popularity", rows=50))) <= {1, 2, 3}


def test_a_user_who_had_nearly_everything_gets_the_rest():
    log = EventLog(np.array([0, 30, 31]), {"i": np.arange(1, 32, dtype="int32")})
    both = Samples(log, np.array([0, 1]), np.array([30, 1]), RowNumbers(0, 2), histories=Histories(negatives="uniform"))
    drawn = draws_of(both, [log.features["i"]], 0, 9).draw(0, np.zeros(500, int), np.arange(500), "history", 3)[0]
    assert set(np.unique(drawn)) == {31}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5000)), min_size=1, max_size=200))
@laws
def test_own_items_are_never_missed_and_others_seldom_hit(pairs):
    user, item = np.array(sorted(pairs)).T
    counts = np.bincount(user, minlength=6)
    own = OwnItems(user, item, counts)
    assert own.has(user, item).all()
    everything = np.arange(1, 5001)
    for one in range(6):
        wrong = own.has(np.full(5000, one), everything) & ~np.isin(everything, item[user == one])
        assert wrong.mean() <= 1 / 16


def test_draws_follow_from_seed_epoch_row_and_place_alone(spec):
    one = whole(spec, epoch=1)
    again = whole(spec, epoch=1)
    other_epoch, fixed, fixed_too = whole(spec, epoch=2), whole(spec, epoch=1, redraw=False), \
        whole(spec, epoch=2, redraw=False)
    columns = read_columns(spec, "train")
    (other_seed,) = Loader(columns, spec, batch_size=columns.rows, prefetch=0, seed=1).epoch(1)
    assert torch.equal(one.negative_history[0], again.negative_history[0])
    assert torch.equal(fixed.negative_history[0], fixed_too.negative_history[0])
    for different in (other_epoch, other_seed):
        assert not torch.equal(one.negative_history[0], different.negative_history[0])
        assert not torch.equal(one.target_item[0], different.target_item[0])
        assert torch.equal(one.history[0], different.history[0])
    known = one.history[0][:, -3:] != 0
    shorter = whole(spec, epoch=1, length=3)
    assert torch.equal(one.negative_history[0][:, -3:][known], shorter.negative_history[0][known])
    recent = whole(spec, epoch=1, negative_length=2)
    assert torch.equal(one.negative_history[0][:, -2:], recent.negative_history[0])


# ---- the loader


def tensors(batch):
    return [*batch.user, *batch.target_item, *batch.history, *batch.negative_history, batch.label]


@given(batch_size=st.integers(1, 30), shuffle=st.sampled_from(["none", "batches", "rows"]),
       window_rows=st.integers(1, 120), epoch=st.integers(0, 2), prefetch=st.integers(0, 2), data=st.data())
@laws
def test_batches_do_not_depend_on_how_they_are_read(spec, batch_size, shuffle, window_rows, epoch, prefetch, data):
    columns = read_columns(spec, "train")
    settings_ = {"batch_size": batch_size, "shuffle": shuffle, "window_rows": window_rows, "seed": 3}
    loader = Loader(columns, spec, prefetch=0, **settings_)
    expected = list(loader.epoch(epoch))
    first = data.draw(st.integers(0, len(loader)))
    other = list(Loader(columns, spec, prefetch=prefetch, **settings_).epoch(epoch, first))
    ranks = [list(Loader(columns, spec, prefetch=0, rank=rank, world_size=2, **settings_).epoch(epoch))
             for rank in range(2)]
    assert len(other) == len(expected) - first
    for index, batch in enumerate(expected):
        with_samples = [rank[index] for rank in ranks if rank[index].part.samples]
        for a, *parts in zip(tensors(batch), *map(tensors, with_samples), strict=True):
            assert torch.equal(a, torch.cat(parts))
        if index >= first:
            assert all(torch.equal(a, b) for a, b in zip(tensors(batch), tensors(other[index - first]), strict=True))


@pytest.mark.parametrize("channels", [("history",), ("user", "target_item"), ("numerical", "user"),
                                      ("target_item", "history"), ("history", "negative_history")], ids=" ".join)
@pytest.mark.parametrize("stored", [False, True])
def test_only_the_channels_asked_for_are_made_and_the_same(tmp_path, channels, stored):
    spec = write_log(tmp_path, stored_negatives=stored)
    columns = read_columns(spec, "train")
    settings = dict(batch_size=9, shuffle="rows", window_rows=40, seed=3)
    every = Loader(columns, spec, **settings).epoch(1)
    for whole, some in zip(every, Loader(columns, spec, channels=channels, **settings).epoch(1), strict=True):
        assert torch.equal(some.label, whole.label)
        for channel in ("user", "target_item", "history", "negative_history"):
            expected = getattr(whole, channel) if channel in channels else ()
            assert len(getattr(some, channel)) == len(expected)
            assert all(map(torch.equal, getattr(some, channel), expected))


def test_nothing_is_drawn_for_channels_that_are_not_read(tmp_path, monkeypatch):
    spec = write_log(tmp_path, targets=False)
    monkeypatch.setattr("clickwise.data.events_windows.draws_of", None)
    columns = read_columns(spec, "train")
    next(Loader(columns, spec, batch_size=9, prefetch=0, channels=("history", "target_item")).epoch(0))
    with pytest.raises(TypeError):
        Loader(columns, spec, batch_size=9, prefetch=0)


def test_every_shuffle_makes_the_same_rows(spec):
    columns = read_columns(spec, "train")

    def rows(shuffle):
        batches = Loader(columns, spec, batch_size=7, shuffle=shuffle, window_rows=40, prefetch=0).epoch(1)
        return sorted(tuple(torch.cat([tensor.reshape(len(batch), -1).long() for tensor in tensors(batch)], 1)[row]
                            .tolist()) for batch in batches for row in range(len(batch)))

    assert rows("none") == rows("rows") == rows("batches")


def test_a_resumed_epoch_goes_on_with_the_same_bytes(spec):
    columns = read_columns(spec, "train")
    loader = Loader(columns, spec, batch_size=8, shuffle="rows", window_rows=30, seed=5)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    rest = list(batches)
    resumed = Loader(columns, spec, batch_size=8, shuffle="rows", window_rows=30, seed=5)
    resumed.load_state_dict(state)
    for a, b in zip(rest, resumed, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
    other = Loader(with_histories(columns, negatives="uniform"), spec, batch_size=8, shuffle="rows", window_rows=30,
                   seed=5)
    with pytest.raises(DataError, match="negatives"):
        other.load_state_dict(state)


def test_a_batch_of_one_row_and_one_without_a_history(tmp_path):
    spec = write_log(tmp_path, users=3, seed=1)
    columns = read_columns(spec, "test")
    for batch in Loader(columns, spec, batch_size=1).epoch(0):
        assert [tuple(tensor.shape) for tensor in batch.history] == [(1, LENGTH)] * 3
    position = np.zeros(columns.rows, "int32")
    empty = dataclasses.replace(columns, events=dataclasses.replace(columns.events, position=position))
    for batch in Loader(empty, spec, batch_size=2).epoch(0):
        assert not any(tensor.any() for tensor in (*batch.history, *batch.negative_history))


def test_a_part_of_the_columns_gives_the_same_rows(spec):
    batch, columns = whole(spec), read_columns(spec, "train")
    (part,) = Loader(columns.part(slice(5, 17)), spec, batch_size=12, prefetch=0).epoch(0)
    for a, b in zip(tensors(batch), tensors(part), strict=True):
        assert torch.equal(a[5:17], b)


def test_targets_and_negatives_of_their_own(tmp_path):
    spec = write_log(tmp_path, targets=False, stored_negatives=True)
    check_columns(spec, "train")
    batch = whole(spec)
    offsets, _, _, user, position, _ = raw(spec, "train")
    other = np.fromfile(tmp_path / "events/item_negatives.bin", "int32")
    assert batch.target_item[0].tolist() == np.fromfile(tmp_path / "train/item.bin", "int32").tolist()
    for row, (u, p) in enumerate(zip(user, position, strict=True)):
        known = batch.history[0][row] != 0
        expected = torch.tensor(padded(other[offsets[u] : offsets[u] + p].tolist(), LENGTH)) * known
        assert batch.negative_history[0][row].tolist() == expected.tolist()


def test_times_of_samples(tmp_path):
    spec = write_log(tmp_path)
    (_, _, time, user, position, _), offsets = raw(spec, "train"), raw(spec, "train")[0]
    when = time[offsets[user] + position] + 35
    when.astype("int64").tofile(tmp_path / "train/time.bin")
    *chunks, events = spec.mappings["train"]
    events = dataclasses.replace(events, files=(*events.files, "train/time.bin"))
    spec = dataclasses.replace(spec, mappings={"train": (*chunks, events)})
    check_columns(spec, "train")
    batch = whole(spec)
    row = int(np.argmax(position))
    last = offsets[user[row]] + position[row] - 1
    is_known = bool(batch.history[0][row, -1] > 0)
    assert batch.history[2][row, -1] == gap_ids(np.array(when[row] - time[last]), 10, 8) * is_known
    (when - 1000).astype("int64").tofile(tmp_path / "train/time.bin")
    with pytest.raises(SpecError, match="before the last of its history"):
        check_columns(spec, "train")


# ---- fixed windows and lists


FIXED = {"label": Feature("label", "bool"), "item": Feature("item", "int32", 50),
         "seen": Feature("seen", "int32", 50, dimensions=(5,)), "other": Feature("other", "int32", 50, dimensions=(5,))}
CHANNELS = {"label": ("label",), "target_item": ("item",), "history": ("seen",), "negative_history": ("other",)}


def parquet(folder, features, seen, other):
    rows = len(seen)
    pq.write_table(pa.table({"label": [row % 2 for row in range(rows)], "item": [row % 50 for row in range(rows)],
                             "seen": seen, "other": other}), folder / "rows.parquet")
    chunk = Chunk("parquet", tuple(features), ("rows.parquet",))
    FeatureSpec(features, {"train": (chunk,)}, CHANNELS, {}, folder).save(folder)


def test_windows_of_fixed_length_are_read_from_parquet(tmp_path):
    seen = [[0] * (row % 5) + [row % 7 + 1] * (5 - row % 5) for row in range(12)]
    other = [[9 * (i > 0) for i in window] for window in seen]
    parquet(tmp_path, FIXED, seen, other)
    for length in (None, 3):
        config = DataConfig(path=str(tmp_path), shuffle="none", histories=Histories(length=length))
        (batch,) = Dataset(config).train_loader(batch_size=12, seed=0, pin_memory=False).epoch(0)
        assert batch.history[0].tolist() == [window[-(length or 5):] for window in seen]
        assert batch.negative_history[0].tolist() == [window[-(length or 5):] for window in other]
        assert batch.target_item[0].tolist() == list(range(12))


def test_lists_of_any_length_become_windows(tmp_path):
    features = {name: dataclasses.replace(feature, dimensions=None, max_hotness=6) if feature.dimensions else feature
                for name, feature in FIXED.items()}
    seen = [list(range(1, 1 + row % 6)) for row in range(12)]
    other = [[40 + i for i in window] for window in seen]
    parquet(tmp_path, features, seen, other)
    for length in (None, 3):
        config = DataConfig(path=str(tmp_path), shuffle="rows", histories=Histories(length=length))
        (batch,) = Dataset(config).train_loader(batch_size=12, seed=0, pin_memory=False).epoch(0)
        assert sorted(batch.history[0].tolist()) == sorted(padded(window, length or 6) for window in seen)
        assert sorted(batch.negative_history[0].tolist()) == sorted(padded(window, length or 6) for window in other)
    other[3] = [1]
    parquet(tmp_path, features, seen, other)
    with pytest.raises(DataError, match="row 3"):
        read_columns(FeatureSpec.load(tmp_path), "train")


# ---- bad input


def broken(spec, name, dtype, change):
    values = np.fromfile(spec.folder / name, dtype)
    change(values)
    values.tofile(spec.folder / name)


def put(index, value):
    return lambda values: values.__setitem__(index, value)


@pytest.mark.parametrize(("name", "dtype", "change", "words"), [
    ("events/offsets.bin", "int64", put(3, 0), ["offsets.bin, user", "never fall"]),
    ("events/item_history.bin", "int32", put(2, ITEMS), ["item_history.bin, row 2", f"id {ITEMS}"]),
    ("events/item_history.bin", "int32", put(slice(None), 0), ["no event with a known item"]),
    ("events/category_history.bin", "int8", put(1, -1), ["category_history.bin, row 1"]),
    ("train/position.bin", "int32", put(4, 99), ["train/position.bin, row 4", "the position 99"]),
    ("train/position.bin", "int32", put(4, -1), ["train/position.bin, row 4"]),
    ("train/user_id.bin", "int32", put(0, 9), ["train/user_id.bin, row 0", "9"]),
    ("events/gap.bin", "int64", lambda time: time.__setitem__(slice(None), time[::-1].copy()),
     ["gap.bin, event", "order of time"]),
])
def test_what_a_log_must_not_hold(tmp_path, name, dtype, change, words):
    spec = write_log(tmp_path)
    check_columns(spec, "train")
    broken(spec, name, dtype, change)
    with pytest.raises(SpecError) as error:
        check_columns(spec, "train")
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(("name", "words"), [
    ("events/item_history.bin", ["events", "where offsets.bin ends"]), ("train/position.bin", ["rows", "user_id.bin"]),
    ("train/label.bin", ["rows"])])
def test_files_that_are_cut_off(tmp_path, name, words):
    spec = write_log(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SpecError) as error:
        check_columns(spec, "train")
    assert all(word in str(error.value) for word in words), error.value


def changed(spec, **parts):
    return lambda: dataclasses.replace(spec, **parts)


def test_what_a_spec_of_histories_must_not_say(spec):
    *columns, events = spec.mappings["train"]

    def other(**changes):
        return changed(spec, mappings={"train": (*columns, dataclasses.replace(events, **changes))})

    def feature(name, **changes):
        return changed(spec, features={**spec.features, name: dataclasses.replace(spec.features[name], **changes)})

    without = tuple(name for name in events.features if name != "category_negatives")
    for wrong, words in [
        (changed(spec, channels={**spec.channels, "negative_history": ("item_negatives",),
                                 "left_out": ("category_negatives",)}), ["negative_history", "a twin for each of 2"]),
        (other(features=without), ["category_negatives", "negative_history"]),
        (other(features=("user_id", *events.features)), ["user_id"]),
        (other(files=events.files[:4]), ["4 files", "offsets"]),
        (other(options={"negatives": "popular"}), ["did you mean 'popularity'"]),
        (feature("category_history", dimensions=(5,)), ["dimensions [5]", "item_history"]),
        (feature("item_history", dimensions=(5, 2)), ["one number"]),
        (feature("item_negatives", cardinality=9), ["item_negatives", "twin"]),
        (feature("gap", extra={"time_gap": 0}), ["time_gap", "at least 1"]),
        (feature("item", cardinality=9), ["the target", "same cardinalities"]),
    ]:
        with pytest.raises(SpecError) as found:
            wrong()
        assert all(word in str(found.value) for word in words), found.value


def test_settings_of_histories():
    for key in ("length", "negative_length"):
        with pytest.raises(RecipeError, match=key):
            parse(Histories, {key: 0}, "recipe.data.histories")


def test_a_spec_of_events_survives_the_disk(spec, tmp_path):
    spec.save(tmp_path)
    assert FeatureSpec.load(tmp_path) == spec


def test_a_recipe_chooses_windows_and_what_is_drawn_in_training(tmp_path):
    spec = write_log(tmp_path)
    config = DataConfig(path=str(tmp_path), shuffle="none",
                        histories=Histories(length=4, negatives="uniform", negative_length=2, redraw=False))
    dataset = Dataset(config)
    loader = dataset.train_loader(batch_size=8, seed=0, pin_memory=False)
    assert loader.columns.events.histories == config.histories
    batch = next(loader.epoch(0))
    assert batch.history[0].shape == (8, 4) and batch.negative_history[0].shape == (8, 2)
    assert torch.equal(batch.target_item[0], next(loader.epoch(1)).target_item[0])
    other = next(dataset.train_loader(batch_size=8, seed=1, pin_memory=False).epoch(0))
    assert not torch.equal(batch.target_item[0], other.target_item[0])
    tested = dataset.evaluation_loader("test", batch_size=500, pin_memory=False)
    assert tested.columns.events.histories.negatives == "popularity"  # as the dataset says, whatever the recipe does
    assert torch.equal(next(tested.epoch(0)).target_item[0], whole(spec, "test", redraw=False).target_item[0])
    inputs = dataset.inputs(DIN.reads(spec, None))
    assert inputs["user"] == ["user_id"] and inputs["history"][0] == "item_history"
    assert dataset.identity["files"].keys() >= {"events/offsets.bin", "train/position.bin"}


@pytest.mark.parametrize("fixed", [True, False])
def test_transcoded_histories_are_the_same(tmp_path, fixed):
    features = FIXED if fixed else {
        name: dataclasses.replace(feature, dimensions=None, max_hotness=5) if feature.dimensions else feature
        for name, feature in FIXED.items()}
    seen = [[row % 7 + 1] * (5 if fixed else row % 6) for row in range(12)]
    (tmp_path / "in").mkdir()
    parquet(tmp_path / "in", features, seen, [[9 for _ in window] for window in seen])
    transcode(tmp_path / "in", tmp_path / "out")
    for folder in ("in", "out"):
        check_columns(FeatureSpec.load(tmp_path / folder), "train")
        (batch,) = Dataset(DataConfig(path=str(tmp_path / folder), shuffle="none")).train_loader(
            batch_size=12, seed=0, pin_memory=False).epoch(0)
        assert batch.history[0].tolist() == [padded(window, 5) for window in seen]
        assert batch.negative_history[0].tolist() == [padded([9] * len(window), 5) for window in seen]


def test_a_log_of_events_is_no_table_to_transcode(spec, tmp_path):
    with pytest.raises(DataError, match="'events'"):
        transcode(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()
