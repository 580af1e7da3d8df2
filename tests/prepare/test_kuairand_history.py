"""KuaiRand's histories, worked out impression by impression in plain Python."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kuairand_rows import attributes, ids, in_order, random_log, write_table

from clickwise.data.check import check_columns
from clickwise.data.columns import read_columns
from clickwise.data.loader import Loader
from clickwise.errors import PrepareError, RecipeError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import run, summary

LOG = random_log(160)
TRAIN_END, TEST_FROM = 20220430, 20220501
DAYS = {"train": (0, TRAIN_END), "validation": (TRAIN_END, TEST_FROM), "test": (TEST_FROM, 99999999)}
WATCHED = {0: [105, 103, 105, 999], 1: [], 2: [100], 3: [111, 102], 50: [101]}  # user 50 never comes, 999 is no video
BEFORE = -1  # ms: earlier than every impression


@pytest.fixture
def prepare(tmp_path):
    def prepare(*, name="out", watched=WATCHED, **history):
        folder = tmp_path / f"{name}_raw"
        users, videos = attributes()
        write_table(folder / "log_standard_tiny.csv", LOG)
        write_table(folder / "user_features_tiny.csv", users)
        write_table(folder / "video_features_basic_tiny.csv", videos)
        if watched is not None:
            pq.write_table(pa.table({"user_id": list(watched), "last_time_ms": [BEFORE] * len(watched),
                                     "watch_seq": pa.array(list(watched.values()), pa.list_(pa.int64()))}),
                           folder / "watch_history_tiny.parquet")
        options = {key: history.pop(key) for key in ("count_until", "shuffle") if key in history}
        section = {"name": "kuairand", "folder": str(folder), "frequency_limit": 1, "shuffle": False,
                   "numerical": ["duration"], "categorical": ["tab"],
                   "history": {"length": 6, **history}, **options}
        return run({"dataset": section, "engine": {"threads": 1}, "out": str(tmp_path / name)}, "test.yaml")

    return prepare


def tag_of(video):
    tag = next((row["tag"] for row in attributes()[1] if row["video_id"] == video), "")
    return tag.split(",")[0].strip()


def author_of(video):
    return next((row["author_id"] for row in attributes()[1] if row["video_id"] == video), -1)


def vocabularies(sources):
    seen = [row["video_id"] for row in in_order(LOG, *DAYS["train"])]
    if "watched" in sources:
        seen += [video for videos in WATCHED.values() for video in videos]
    return tuple(ids([of(video) for video in seen], 1) for of in (int, tag_of, author_of))


def events_before(row, sources, until):
    """Time and video of the events before the impression, the video passed over before each, the outcome."""
    found = [(BEFORE, video, None, 2) for video in WATCHED.get(row["user_id"], [])] if "watched" in sources else []
    mine = in_order([r for r in LOG if r["user_id"] == row["user_id"]], 0, 99999999)
    for index, r in enumerate(mine if {"clicked", "shown"} & set(sources) else []):
        if (r["is_click"] or "shown" in sources) and r["time_ms"] < row["time_ms"] and r["date"] <= until:
            passed = [other["video_id"] for other in mine[:index] if not other["is_click"]]
            found.append((r["time_ms"], r["video_id"], passed[-1] if passed else None,
                          1 + r["is_click"]))
    return found


def padded(values):
    return ([0] * 6 + values)[-6:]


@pytest.mark.parametrize("sources", [["watched"], ["clicked"], ["watched", "clicked"], ["watched", "shown"]])
@pytest.mark.parametrize("count_until", ["training", "earlier_days"])
def test_histories_are_what_was_chosen_strictly_before(prepare, sources, count_until):
    out = prepare(sources=sources, items=["video", "tag", "author"], count_until=count_until)
    spec = FeatureSpec.load(out)
    videos, tags, authors = vocabularies(sources)
    until = TEST_FROM - 1 if count_until == "training" else 99999999
    for mapping, days in DAYS.items():
        check_columns(spec, mapping)
        columns = read_columns(spec, mapping)
        (batch,) = Loader(columns, spec, batch_size=columns.rows).epoch(0)
        rows = in_order(LOG, *days)
        assert [ids_B.tolist() for ids_B in batch.target_item] == [
            [vocabulary.get(of(row["video_id"]), 0) for row in rows]
            for vocabulary, of in ((videos, int), (tags, tag_of), (authors, author_of))]
        for index, row in enumerate(rows):
            before = events_before(row, sources, until)
            known = [video in videos for _, video, *_ in before]
            expected = [[(vocabulary[of(video)] if is_known else 0) for (_, video, *_), is_known
                         in zip(before, known, strict=True)] for vocabulary, of in
                        ((videos, int), (tags, tag_of), (authors, author_of))]
            gaps = [min(1 + ((row["time_ms"] - time) // 60_000).bit_length(), 17) * is_known
                    for (time, *_), is_known in zip(before, known, strict=True)]
            found = [tensor[index].tolist() for tensor in batch.history]
            outcomes = [outcome * is_known for (*_, outcome), is_known in zip(before, known, strict=True)]
            further = [outcomes, gaps] if "shown" in sources else [gaps]
            assert found == [padded(values) for values in (*expected, *further)], (mapping, index)
            passed = [videos.get(other, None) for _, _, other, _ in before]
            for ours, theirs, is_event in zip(batch.negative_history[0][index].tolist(), padded(passed),
                                              padded(known), strict=True):
                assert (ours > 0) == bool(is_event) and (not theirs or not is_event or ours == theirs)


def test_what_is_counted(prepare):
    out = prepare()
    found = summary(out)["history"]
    clicks = sum(row["is_click"] for row in LOG if row["date"] < TEST_FROM)
    assert found["events"] == clicks + sum(map(len, WATCHED.values()))
    assert summary(out)["cardinalities"]["video"] == len(vocabularies(["watched"])[0]) + 1
    none = sum(not events_before(row, ["watched", "clicked"], TEST_FROM - 1) for row in LOG)
    assert found["impressions_without_history"] == none


def test_shuffled_rows_keep_their_histories(prepare):
    plain, mixed = prepare(name="a"), prepare(name="b", shuffle=True)

    def rows(out):
        spec = FeatureSpec.load(out)
        columns = read_columns(spec, "train")
        (batch,) = Loader(columns, spec, batch_size=columns.rows).epoch(0)
        parts = (*batch.target_item, batch.label, batch.display, *batch.history, *batch.negative_history)
        return np.concatenate([tensor.reshape(len(batch), -1).numpy().astype(np.int64) for tensor in parts], 1).tolist()

    assert rows(plain) != rows(mixed) and sorted(rows(plain)) == sorted(rows(mixed))


def test_a_frequency_limit_hides_rare_videos(prepare):
    out = prepare(frequency_limit=10, items=["video"], time_gap=False)
    spec = FeatureSpec.load(out)
    assert spec.features["video"].cardinality < len(vocabularies(["watched"])[0]) + 1
    check_columns(spec, "train")
    assert spec.channels["history"] == ("video_history",)


@pytest.mark.parametrize(("history", "word"), [
    ({"sources": []}, "sources"), ({"sources": ["liked"]}, "sources"), ({"items": ["tag"]}, "video first"),
    ({"items": ["video", "video"]}, "items"), ({"length": 0}, "length"), ({"lenght": 3}, "did you mean 'length'")])
def test_settings_that_cannot_be(prepare, history, word):
    with pytest.raises(RecipeError, match=word):
        prepare(**history)


def test_a_watch_history_that_is_missing_or_of_another_kind(prepare, tmp_path):
    with pytest.raises(PrepareError, match="no file of that pattern"):
        prepare(watched=None)
    prepare(watched=None, sources=["clicked"], name="clicks_only")
    pq.write_table(pa.table({"user_id": [1], "last_time_ms": [1], "watch_seq": ["1,2"]}), tmp_path / "w.parquet")
    with pytest.raises(PrepareError, match="watch_seq as string"):
        run(
            {"dataset": {"name": "kuairand", "folder": str(tmp_path / "clicks_only_raw"), "frequency_limit": 1,
                         "numerical": [], "categorical": ["tab"],
                         "history": {"watched": ["../w.parquet"]}}, "out": str(tmp_path / "p")}, "test.yaml")
