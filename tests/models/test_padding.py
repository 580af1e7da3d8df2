"""On a GPU inputs of MLPs are padded to widths that its products like; here padding is switched on for a CPU."""

import pytest
import torch
from model_inputs import batch_of, model_of, spec_of

from clickwise import wiring
from clickwise.embedding import TableOptimizer
from clickwise.layers import mlp
from clickwise.layers.mlp import MLP
from clickwise.models.dcnv2 import DCNv2
from clickwise.models.dlrm import DLRM
from clickwise.models.wide_deep import WideDeep

SGD = TableOptimizer(name="sgd", lr=0.1)
MODELS = {
    "dlrm": (DLRM, dict(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16,), dropout=0.1)),
    "dcnv2": (DCNv2, dict(embedding_dim=5, bottom_mlp=(8, 6), cross_rank=3, top_mlp=(16, 8), embedding_dropout=0.1)),
    "wide_deep": (WideDeep, dict(embedding_dim=8, deep_hidden=(16, 8), dropout=0.1)),
    "wide_deep, one-hot, dropout of rows": (WideDeep, dict(embedding_sizes={"c0": 0, "c1": 16}, embedding_dim=8,
                                                           deep_hidden=(16, 8), embedding_dropout=0.1)),
    "wide_deep without hidden layers": (WideDeep, dict(embedding_dim=8, deep_hidden=())),
}
FEATURES = {"13 numericals": (13, [5, 30, 7]), "none": (0, [5, 30, 7]), "no ids": (13, [])}


def switch_on(monkeypatch):
    rule = MLP.padding
    monkeypatch.setattr(MLP, "padding", lambda self, device: rule(self, torch.device("cuda")))


def step(model, batch):
    """(logits, dense gradients, tables after the step) of one step in training."""
    torch.manual_seed(3)  # for dropout
    logit_B = model.train()(batch)
    model.zero_grad()
    logit_B.square().sum().backward()
    tables = [engine.rows_of(table.name) for engine in wiring.engines_of(model) for table in engine.tables]
    return logit_B.detach(), [parameter.grad for parameter in model.parameters()], [rows.clone() for rows in tables]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("features", FEATURES)
def test_a_step_with_padding_is_the_step_without(name, features, monkeypatch):
    (model_class, settings), spec = MODELS[name], spec_of(*FEATURES[features])
    if "embedding_sizes" in settings and features == "no ids":
        settings = {**settings, "embedding_sizes": {}}
    plain, other = (model_of(model_class, spec, optimizer=SGD, **settings) for _ in range(2))
    batch, seen, run = batch_of(spec, 20), [], mlp.mlp
    expected = step(plain, batch)
    switch_on(monkeypatch)
    monkeypatch.setattr(mlp, "mlp", lambda x, weights, *more, **settings: seen.append(
        (x.shape[1] % 8, x.shape[1] == weights[0].shape[1]) if weights else None) or run(x, weights, *more, **settings))
    found = step(other, batch)
    assert all(entry in (None, (0, True)) for entry in seen), "every MLP has padded inputs and weights"
    assert seen.count((0, True)) >= (0 if "without" in name else 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(grad.shape == parameter.shape for grad, parameter in zip(found[1], other.parameters(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_too(name, monkeypatch):
    (model_class, settings), spec = MODELS[name], spec_of(13, [5, 30, 7])
    model, batch = model_of(model_class, spec, **settings).eval(), batch_of(spec, 20)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(batch)
        switch_on(monkeypatch)
        torch.testing.assert_close(model(batch), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", MODELS)
def test_checkpoints_know_of_no_padding(name, monkeypatch):
    (model_class, settings), spec = MODELS[name], spec_of(13, [5, 30, 7])
    plain = model_of(model_class, spec, optimizer=SGD, **settings).eval()
    batch = batch_of(spec, 20)
    step(plain, batch)
    with torch.no_grad():
        expected = plain.eval()(batch)
    switch_on(monkeypatch)
    padded = model_of(model_class, spec, optimizer=SGD, **settings).eval()
    assert {name: value.shape for name, value in padded.state_dict().items()} == \
        {name: value.shape for name, value in plain.state_dict().items()}
    padded.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(padded(batch), expected)
    step(padded, batch)
    with torch.no_grad():
        expected = padded.eval()(batch)
    monkeypatch.undo()
    plain.load_state_dict(padded.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain(batch), expected)


def test_wide_deep_lays_its_rows_where_they_are_aligned_without_another_copy(monkeypatch):
    spec = spec_of(13, [5, 30, 7])
    model = model_of(WideDeep, spec, embedding_dim=8, deep_hidden=(16,))
    firsts, look_up = [], type(model.deep.embeddings).forward
    monkeypatch.setattr(type(model.deep.embeddings), "forward", lambda self, columns, *, before=None: firsts.append(
        None if before is None else before.shape[1]) or look_up(self, columns, before=before))
    seen, run = [], mlp.mlp
    monkeypatch.setattr(mlp, "mlp", lambda x, *more, **settings: seen.append(x) or run(x, *more, **settings))
    switch_on(monkeypatch)
    model(batch_of(spec, 4))
    assert firsts == [None, 16] and seen[0].shape == (4, 40) and not seen[0][:, :3].any()
    assert "RowsOfTables" in type(seen[0].grad_fn).__name__, "what the look-up gave, and no copy of it"
