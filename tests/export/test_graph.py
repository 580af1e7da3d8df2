"""A model's ONNX file gives the scores of the model, for every model and every number of rows."""

import numpy as np
import pytest
from graph_cases import arrays_of, opened, ran, scored, session_of
from model_inputs import history_spec, spec_of

from clickwise.export.onnx_file import write_onnx

pytest.importorskip("onnxruntime")

ROWS = (1, 2, 7, 64)
FLAT = spec_of(3, [30, 9, 40, 7, 300], [None, None, 4, None, 3])
ONE_HOT = spec_of(2, [30, 9, 40])
NO_NUMBERS = spec_of(0, [30, 9, 40], [None, 4, None])
NUMBERS = spec_of(3, [])
# Of many items, since a search takes any of those that are alike.
HISTORY = history_spec([9, 12], [9999, 5], [9999, 5, 8], gaps=[6], length=11, beside=spec_of(2, [11, 6], [None, 3]))
PLAIN = history_spec([], [9999], [9999], negatives=False, length=9)
SMALL = dict(embedding_dim=4, top_mlp=[8])
EVOLVES = dict(**SMALL, gru_size=6)
SEARCHES = dict(**EVOLVES, short_length=3, k=2, heads=2, head_dim=4, hash_group=2, hash_bits=6)
CROSSED = dict(deep_hidden=[8], crosses=[["c0", "c1"], ["c0", "c3", "c1"]], cross_buckets=50,
               embedding_sizes={"c0": 4, "c1": 0, "c2": 4, "c3": 8, "c4": 2})


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


CASES = {
    "dlrm": (FLAT, "dlrm", dict(embedding_dim=4, bottom_mlp=[8, 4], top_mlp=[8])),
    "dcnv2, widths that differ": (FLAT, "dcnv2", dict(embedding_dim=4, embedding_dims={"c1": 8, "c2": 8},
                                                      bottom_mlp=[8], cross_rank=3, top_mlp=[8])),
    "wide_deep, crosses": (FLAT, "wide_deep", dict(**CROSSED, combiner="mean")),
    "din": (HISTORY, "din", dict(**SMALL, unit_mlp=[6])),
    "dien": (HISTORY, "dien", EVOLVES),
    "sim, soft": (HISTORY, "sim", SEARCHES),
}
FURTHER = {
    "wide_deep, both of one width": (ONE_HOT, "wide_deep", dict(embedding_dim=1, deep_hidden=[8])),
    "dien, compat": (HISTORY, "dien", dict(**EVOLVES, preset="compat", auxiliary_loss_weight=0)),
    "din, compat": (HISTORY, "din", dict(**SMALL, preset="compat")),
    "sim, hard": (HISTORY, "sim", dict(**SEARCHES, search="hard")),
    "sim, simhash": (HISTORY, "sim", dict(**SEARCHES, search="simhash")),
    "sim, sdim": (HISTORY, "sim", dict(**SEARCHES, search="sdim")),
    "sim, compat": (HISTORY, "sim", dict(**SEARCHES, preset="compat", auxiliary_loss_weight=0)),
    "dlrm, cat": (FLAT, "dlrm", dict(embedding_dim=4, bottom_mlp=[8, 5], top_mlp=[8], interaction="cat")),
    "dlrm, no numericals": (NO_NUMBERS, "dlrm", dict(embedding_dim=4, bottom_mlp=[8, 4], top_mlp=[8])),
    "dlrm, numericals alone": (NUMBERS, "dlrm", dict(embedding_dim=4, bottom_mlp=[8, 4], top_mlp=[8])),
    "dcnv2, parallel": (FLAT, "dcnv2", dict(embedding_dim=4, bottom_mlp=[], cross_rank=None, top_mlp=[8],
                                            structure="parallel")),
    "dcnv2, no numericals": (NO_NUMBERS, "dcnv2", dict(embedding_dim=4, cross_layers=0, top_mlp=[8])),
    "dcnv2, numericals alone": (NUMBERS, "dcnv2", dict(bottom_mlp=[8], cross_rank=2, top_mlp=[8])),
    "wide": (FLAT, "wide_deep", dict(model_type="wide")),
    "wide, numericals alone": (NUMBERS, "wide_deep", dict(model_type="wide")),
    "deep": (NO_NUMBERS, "wide_deep", dict(model_type="deep", embedding_dim=4, deep_hidden=[8])),
    **{f"din, {act}": (PLAIN, "din", dict(**SMALL, unit_mlp=[6], unit_activation=act, activation=act))
       for act in ("dice", "relu", "sigmoid")},
    "din, short": (HISTORY, "din", dict(**SMALL, history_length=4)),
    "dien, bilinear, short": (PLAIN, "dien", dict(**EVOLVES, attention="bilinear", history_length=4)),
    "dien, compat with a mask": (HISTORY, "dien", dict(**EVOLVES, augru="compat")),
    "dien, all padding goes through": (HISTORY, "dien", dict(**EVOLVES, mask_padding=False)),
    "sim, dot": (PLAIN, "sim", dict(**SEARCHES, pooling="dot", search_loss_weight=1.0)),
    "sim, all is short": (PLAIN, "sim", dict(**{**SEARCHES, "short_length": 20})),
    "sim, more than there is": (PLAIN, "sim", dict(**{**SEARCHES, "k": 20})),
}


@pytest.mark.parametrize("case", [*CASES, *map(slow, FURTHER)])
def test_scores_are_those_of_the_model(case, tmp_path):
    spec, name, settings = (CASES | FURTHER)[case]
    session = session_of(spec, name, **settings)
    inputs = write_onnx(session, tmp_path / "model.onnx")
    file = opened(tmp_path / "model.onnx")
    assert [given.name for given in file.get_inputs()] == [given.name for given in inputs]
    for rows in ROWS:
        for as_lists in (True, False) if spec.channel("history") and not spec.features.get("seen3") else (True,):
            arrays = arrays_of(spec, rows, seed=rows, as_lists=as_lists)
            expected, found = scored(session, arrays, rows), ran(file, inputs, arrays, rows)
            for kind, atol in (("logit", 1e-5), ("probability", 1e-6)):
                assert found[kind].dtype == np.float32 and found[kind].shape == (rows,)
                np.testing.assert_allclose(found[kind], expected[kind], rtol=0, atol=atol)


def test_the_model_of_the_session_stays_as_it_is(tmp_path):
    session = session_of(ONE_HOT, "dcnv2", embedding_dim=4, bottom_mlp=[8], cross_rank=2, top_mlp=[8])
    arrays = arrays_of(ONE_HOT, 7)
    before, state = scored(session, arrays, 7), session.model.state_dict()
    before_state = {key: value.clone() for key, value in state.items()}
    write_onnx(session, tmp_path / "model.onnx")
    np.testing.assert_array_equal(scored(session, arrays, 7)["logit"], before["logit"])
    assert all((value == before_state[key]).all() for key, value in session.model.state_dict().items())


def test_ids_modulo_the_rows_of_a_table(tmp_path):
    session = session_of(FLAT, "dcnv2", embedding=dict(max_table_size=8, hash_indices=True), embedding_dim=4,
                         bottom_mlp=[8], cross_rank=2, top_mlp=[8])
    inputs = write_onnx(session, tmp_path / "model.onnx")
    arrays = arrays_of(FLAT, 64)
    np.testing.assert_allclose(ran(opened(tmp_path / "model.onnx"), inputs, arrays, 64)["probability"],
                               scored(session, arrays, 64)["probability"], rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def of_one_hot(tmp_path_factory):
    path = tmp_path_factory.mktemp("one_hot") / "model.onnx"
    inputs = write_onnx(session_of(ONE_HOT, "dcnv2", embedding_dim=4, bottom_mlp=[8], cross_rank=2, top_mlp=[8]), path)
    return opened(path), inputs


@pytest.mark.parametrize(("feature", "wrong"), [("c0", -1), ("c0", 30), ("c1", 9), ("c2", 40), ("c2", 10**12)])
def test_an_id_that_is_no_row_is_refused(of_one_hot, feature, wrong):
    arrays = {**arrays_of(ONE_HOT, 3), feature: np.array([0, 1, wrong])}
    with pytest.raises(Exception, match="out of data bounds"):
        ran(*of_one_hot, arrays, 3)
