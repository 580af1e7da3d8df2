"""Generated Outbrain logs: the format, the quirks, and that the best possible metrics are what they claim to be."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from clickwise.data.synthetic import raw_outbrain
from clickwise.data.synthetic.outbrain_world import World
from clickwise.data.synthetic.raw_outbrain import HEADERS, display_sizes, synthesize_raw_outbrain
from clickwise.errors import DataError


def rows_of(folder, name):
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outbrain") / "raw"
    return folder, synthesize_raw_outbrain(folder, 20_000, seed=3, threads=1)


def test_every_file_has_its_columns(raw):
    folder, _ = raw
    assert {file.name: file.read_text().split("\n", 1)[0] for file in folder.iterdir()} == HEADERS


def test_every_display_has_one_click_and_an_event(raw):
    folder, figures = raw
    clicks = rows_of(folder, "clicks_train")
    assert len(clicks) == figures["rows"] == 20_000
    by_display = defaultdict(list)
    for row in clicks:
        by_display[row["display_id"]].append(row)
    assert all(sum(row["clicked"] == "1" for row in rows) == 1 for rows in by_display.values())
    assert all(len({row["ad_id"] for row in rows}) == len(rows) <= 12 for rows in by_display.values())
    assert 4.8 < len(clicks) / len(by_display) < 5.6 and len(by_display) == figures["displays"]
    events = [row["display_id"] for row in rows_of(folder, "events")]
    test = {row["display_id"] for row in rows_of(folder, "clicks_test")}
    assert sorted(events, key=int) == events and set(events) == set(by_display) | test
    assert not test & set(by_display)
    ads = {row["ad_id"] for row in rows_of(folder, "promoted_content")}
    assert {row["ad_id"] for row in clicks} <= ads


def test_the_quirks_of_the_real_files_are_there(raw):
    folder, _ = raw
    events, meta = rows_of(folder, "events"), rows_of(folder, "documents_meta")
    assert {row["platform"] for row in events} == {"1", "2", "3", "\\N"}
    lengths = Counter(row["geo_location"].count(">") for row in events)
    assert set(lengths) == {0, 1, 2} and any(row["geo_location"] == "" for row in events)
    assert 0.2 < np.mean([row["publish_time"] == "" for row in meta]) < 0.5
    assert any(row["source_id"] and not row["publisher_id"] for row in meta)
    for kind in ("categories", "topics", "entities"):
        aspects = rows_of(folder, f"documents_{kind}")
        key = list(aspects[0])[1]
        most = max(Counter((row["document_id"], row[key]) for row in aspects).values())
        assert 2 <= most <= 3, kind
        assert len({row["document_id"] for row in aspects}) < len(meta)


def test_page_views_hold_the_leak(raw):
    """The landing page of the click is viewed within a minute after the event, that of another ad hardly ever."""
    folder, _ = raw
    landing = {row["ad_id"]: row["document_id"] for row in rows_of(folder, "promoted_content")}
    events = {row["display_id"]: row for row in rows_of(folder, "events")}
    views = defaultdict(list)
    for row in rows_of(folder, "page_views"):
        views[row["uuid"], row["document_id"]].append(int(row["timestamp"]))
    found = {"0": [], "1": []}
    for row in rows_of(folder, "clicks_train"):
        event = events[row["display_id"]]
        moments = views[event["uuid"], landing[row["ad_id"]]]
        found[row["clicked"]].append(any(0 < at - int(event["timestamp"]) <= 60_000 for at in moments))
    assert np.mean(found["1"]) == 1 and np.mean(found["0"]) < 0.2


def test_the_ceiling_is_what_the_true_order_reaches(raw):
    """MAP@12 and AUC of the true probabilities, worked out anew from the files."""
    folder, figures = raw
    world = World(figures["displays"], 3, 1.45)
    clicks = np.array([[int(value) for value in row.values()] for row in rows_of(folder, "clicks_train")])
    events = {int(row["display_id"]): row for row in rows_of(folder, "events")}
    uuids = world_uuids(world)
    document = np.array([int(events[display]["document_id"]) for display in clicks[:, 0]])
    user = np.array([uuids[events[display]["uuid"]] for display in clicks[:, 0]])
    logit = world.logit(document, user, clicks[:, 1])
    ranks = []
    for rows in np.split(np.arange(len(clicks)), np.flatnonzero(np.diff(clicks[:, 0])) + 1):
        order = np.argsort(-logit[rows], kind="stable")
        ranks.append(1 / (1 + np.flatnonzero(clicks[rows][order][:, 2])[0]))
    assert np.mean(ranks) == pytest.approx(figures["realised_map_at_12"], abs=1e-4)
    assert figures["realised_map_at_12"] == pytest.approx(figures["best_map_at_12"], abs=0.01)
    assert 0.7 < figures["best_auc"] < 0.9
    assert figures["realised_auc"] == pytest.approx(figures["best_auc"], abs=0.01)


def world_uuids(world):
    log = raw_outbrain.OutbrainLog(world, {})
    return {text: user for user, text in enumerate(log._uuid(np.arange(world.users)).to_pylist())}


def test_threads_and_chunks_change_nothing_but_the_seed_does(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_outbrain, "CHUNK", 700)
    for name, seed, threads in (("a", 1, 1), ("b", 1, 3), ("c", 2, 1)):
        synthesize_raw_outbrain(tmp_path / name, 3000, seed=seed, threads=threads)
    content = {name: {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "abc"}
    assert content["a"] == content["b"]
    assert all(content["a"][name] != content["c"][name] for name in HEADERS)
    displays = [int(row["display_id"]) for row in rows_of(tmp_path / "a", "clicks_train")]
    assert sorted(set(displays)) == list(range(1, max(displays) + 1))


@pytest.mark.parametrize("rows", [1, 2, 13, 5000])
def test_displays_fill_the_rows(rows):
    sizes = display_sizes(0, "train", 0, rows)
    assert sizes.sum() == rows and 1 <= sizes.min() and sizes.max() <= 12


def test_one_row_is_enough(tmp_path):
    assert synthesize_raw_outbrain(tmp_path / "raw", 1, threads=1)["rows"] == 1


def test_a_folder_with_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(DataError):
        synthesize_raw_outbrain(tmp_path, 10)


def test_the_command_prints_the_ceilings(clickwise):
    result = clickwise("synth", "outbrain_raw", "--out", "raw", "--rows", 500, "--json")
    found = json.loads(result.out)
    assert found["rows"] == 500 and found["folder"] == "raw" and 0.5 < found["best_map_at_12"] < 1
    assert clickwise("synth", "outbrain_raw", "--out", "b", "--rows", 500, "--signal", "pair").code == 2
