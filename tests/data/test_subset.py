"""`data.subset`: the first rows of the training mapping, and nothing else changes."""

from __future__ import annotations

import itertools
import json

import pytest
from small_dataset import small_columns, small_spec, write
from small_log import write_log

from clickwise.batch import Ragged
from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.loader import Loader
from clickwise.errors import CheckpointError, DataError, RecipeError
from clickwise.run.session import build_session
from clickwise.training_recipe import load_recipe
from clickwise.verbs.train import train

ROWS = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write(small_spec(folder), small_columns(ROWS))
    return folder


def loader_of(path, batch_size=7, **settings):
    return Dataset(DataConfig(path=str(path), window_rows=50, **settings)).train_loader(
        batch_size=batch_size, seed=3, pin_memory=False)


def values(batch):
    columns = [batch.numerical, *batch.categorical, batch.label, batch.display]
    return [tensor.tolist() for column in columns
            for tensor in ((column.values_V, column.offsets) if isinstance(column, Ragged) else (column,))]


def assert_same(batches, others):
    assert [values(batch) for batch in batches] == [values(batch) for batch in others]


@pytest.mark.parametrize(("subset", "rows"), [(60, 60), (0.4, 60), (0.399, 59), (1, 1), (0.001, 1), (ROWS, ROWS),
                                              (1.0, ROWS), (None, ROWS)])
@pytest.mark.parametrize("shuffle", ["none", "rows"])
def test_it_is_as_if_there_were_no_other_rows(folder, subset, rows, shuffle):
    batch_size = min(7, rows)
    loader = loader_of(folder, batch_size, subset=subset, shuffle=shuffle)
    alone = Loader(small_columns(ROWS).part(slice(rows)), small_spec(), batch_size=batch_size, shuffle=shuffle,
                   window_rows=50, seed=3)
    assert loader.samples == rows and len(loader) == -(-rows // batch_size)
    for epoch in (0, 1):
        assert_same(loader.epoch(epoch), alone.epoch(epoch))


def test_it_goes_on_where_it_stood_and_only_there(folder):
    whole = [values(batch) for batch in loader_of(folder, subset=60).epoch(0)]
    loader = loader_of(folder, subset=60)
    for _ in itertools.islice(loader, 4):
        pass
    state = loader.state_dict()
    again = loader_of(folder, subset=0.4)
    again.load_state_dict(state)
    assert [values(batch) for batch in again] == whole[4:]
    with pytest.raises(DataError, match="rows = 60"):
        loader_of(folder, subset=61).load_state_dict(state)


def test_windows_and_draws_of_a_log_stay_what_they_are(tmp_path):
    write_log(tmp_path)
    some = Dataset(DataConfig(path=str(tmp_path), subset=20, shuffle="none"))
    loaders = [dataset.train_loader(batch_size=10, seed=3, pin_memory=False)
               for dataset in (some, Dataset(DataConfig(path=str(tmp_path), shuffle="none")))]
    assert len(loaders[0]) == 2 < len(loaders[1])
    for one, other in zip(*(loader.epoch(1) for loader in loaders), strict=False):
        for channel in ("user", "target_item", "history", "negative_history"):
            assert all(a.equal(b) for a, b in zip(getattr(one, channel), getattr(other, channel), strict=True))


@pytest.mark.parametrize(("subset", "words"), [
    (0, "found +0"), (-5, "found +-5"), (0.0, "found +0.0"), (1.5, "share of them above 0 to 1.0"),
    ("half", "found +'half'"), (True, "found +True"), ("[1]", "data.subset")])
def test_what_is_no_part_of_the_rows(subset, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("tiny/dlrm", [f"data.subset={subset}"])


def test_more_rows_than_there_are(folder):
    with pytest.raises(DataError, match=r"(?s)data.subset=151.*only 150 rows.*leave data.subset out"):
        loader_of(folder, subset=151)
    with pytest.raises(DataError, match=r"(?s)only 6 rows with data.subset=6.*1.0 all of them"):
        loader_of(folder, subset=6)


def test_a_run_trains_on_it_measures_on_all_and_keeps_it(tmp_path):
    words = ["data.synthetic.rows={train: 2000, validation: 300, test: 300}", "train.batch_size=100",
             "train.threads=1", "data.subset=0.25"]
    folder = train("tiny/dlrm", words, out=tmp_path)
    facts = json.loads((folder / "metrics.json").read_text())
    assert facts["steps"] == 5 * load_recipe("tiny/dlrm").train.epochs
    beside = json.loads((folder / "baselines.json").read_text())
    assert beside["of_train"] == 500 and beside["of"] == 300
    assert len(build_session(load_recipe(str(folder / "recipe.yaml"))).train_loader()) == 5
    with pytest.raises(CheckpointError, match="data.subset"):
        train(None, ["data.subset=0.5"], resume=folder, out=tmp_path)
