"""What a checkpoint knows of the data: held against what the model reads, whatever its age."""

from __future__ import annotations

import copy

import pytest
from model_inputs import history_spec, spec_of

from clickwise.data.dataset import Dataset
from clickwise.models.ctr_model import CTRModel
from clickwise.models.din import DIN
from clickwise.models.dlrm import DLRM

OLD = {  # as checkpoints of earlier versions hold it, of a dataset with a history
    "numerical": ["n0", "n1"], "categorical": ["c0", "c1"], "user": ["user"], "target_item": ["target0", "target1"],
    "history": ["seen0", "seen1"], "cardinalities": [5, 6, 7, 30, 9, 30, 9],
}
OLD_WITHOUT_HISTORY = {"numerical": ["n0", "n1"], "categorical": ["c0", "c1"], "cardinalities": [5, 6]}


@pytest.fixture
def dataset():
    dataset = Dataset.__new__(Dataset)
    dataset.spec = history_spec([7], [30, 9], [30, 9], beside=spec_of(2, [5, 6]))
    return dataset


def test_inputs_are_those_that_the_model_reads(dataset):
    assert dataset.inputs(DIN.reads(dataset.spec, None)) == OLD
    assert dataset.inputs(DLRM.reads(dataset.spec, None)) == OLD_WITHOUT_HISTORY


@pytest.mark.parametrize("model", [DIN, DLRM, CTRModel])
@pytest.mark.parametrize("saved", [OLD, OLD_WITHOUT_HISTORY])
def test_the_same_data_is_taken_from_any_checkpoint(dataset, model, saved):
    assert dataset.other_input(model.reads(dataset.spec, None), saved) is None


CHANGES = {  # of the data: where, and what becomes of it
    "numerical": ("numerical", ["n1", "n0"]), "a feature more": ("categorical", ["c0"]), "order": ("history", ["seen1",
                                                                                                      "seen0"]),
    "another user": ("user", ["member"]), "a user more": ("user", []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_features_are_told_where_they_are_read(dataset, change):
    channel, names = CHANGES[change]
    saved = {**OLD, channel: names}
    sizes = dict(zip([name for key in list(OLD)[1:-1] for name in OLD[key]], OLD["cardinalities"], strict=True))
    saved["cardinalities"] = [sizes.get(name, 7) for key in list(OLD)[1:-1] for name in saved[key]]
    assert dataset.other_input(DIN.reads(dataset.spec, None), saved) == channel
    expected = channel if channel in DLRM.channels else None
    assert dataset.other_input(DLRM.reads(dataset.spec, None), saved) == expected


@pytest.mark.parametrize("index, read_by_dlrm", [(0, True), (1, True), (2, False), (4, False), (6, False)])
def test_other_cardinalities_are_told_where_they_are_read(dataset, index, read_by_dlrm):
    saved = copy.deepcopy(OLD)
    saved["cardinalities"][index] += 1
    assert dataset.other_input(DIN.reads(dataset.spec, None), saved) == "cardinalities"
    assert dataset.other_input(DLRM.reads(dataset.spec, None), saved) == ("cardinalities" if read_by_dlrm else None)
