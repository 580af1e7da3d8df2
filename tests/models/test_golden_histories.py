"""DIN, DIEN and SIM in the preset compat against arrays that the reference's layers computed: outputs, losses and the
gradient of every weight. `golden/sim.npz` holds numbers only: one batch of five samples, weights, results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_inputs import history_spec, model_of

from clickwise.batch import Batch
from clickwise.embedding import TableOptimizer
from clickwise.models.dien import DIEN
from clickwise.models.din import DIN
from clickwise.models.sim import SIM

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "sim.npz")
SETTINGS = {
    "din": (DIN, dict(top_mlp=(8, 4))),
    "dien": (DIEN, dict(top_mlp=(8, 4), auxiliary_mlp=(6, 3), history_length=4)),
    "sim": (SIM, dict(search_mlp=(8,), top_mlp=(8, 4), auxiliary_mlp=(6, 3), k=3, short_length=4)),
}
every_model = pytest.mark.parametrize("name", SETTINGS)
LR = 2.0**12  # tables tell their gradient by a step of plain SGD; a long one, so that no digit is lost


def golden(*keys):
    return torch.from_numpy(GOLDEN["/".join(keys)])


def batch():
    def ids(name):
        return golden("in", name)

    history = tuple(torch.cat([ids(f"long_{kind}"), ids(f"short_{kind}")], 1) for kind in ("item", "cat"))
    negatives = tuple(torch.cat([torch.zeros_like(ids(f"long_{kind}")), ids(f"short_neg_{kind}")], 1)
                      for kind in ("item", "cat"))
    return Batch(user=(ids("user"),), target_item=(ids("target_item"), ids("target_cat")), history=history,
                 negative_history=negatives, label=ids("label"))


def scorer(prefix, index, theirs, layers):
    """Our name → (their arrays, how they become ours), of a small network; theirs are stored (in, out)."""
    pairs = {}
    for layer in range(layers):
        name = f"{theirs}.fc{layer + 1}" if layer < layers - 1 else f"{theirs}.out"
        pairs[f"{prefix}.{index}.{layer}.weight"] = ([f"{name}.kernel"], lambda kernel: kernel.T)
        pairs[f"{prefix}.{index}.{layer}.bias"] = ([f"{name}.bias"], lambda bias: bias)
    return pairs


def slopes(prefix, theirs, layers):
    return {f"{prefix}.activations.{layer}.slope_H": ([f"{theirs}.prelu{layer + 1}.alpha"], lambda alpha: alpha)
            for layer in range(layers)}


def gates_first(width):
    """Their gates r, u and the candidate as our z = u, r, n."""
    return lambda gate, candidate: torch.cat([gate[..., width:], gate[..., :width], candidate], -1)


EVOLUTION = {
    "evolution.gru.input_GE": (["gru.kernel"], lambda kernel: kernel.T),
    "evolution.gru.recurrent_GH": (["gru.recurrent_kernel"], lambda kernel: kernel.T),
    "evolution.gru.input_bias_G": (["gru.bias"], lambda bias: bias[0]),
    "evolution.gru.recurrent_bias_G": (["gru.bias"], lambda bias: bias[1]),
    "evolution.query.weight": (["att.item.kernel"], lambda kernel: kernel.T),
    "evolution.query.bias": (["att.item.bias"], lambda bias: bias),
    "evolution.query_activation.slope_H": (["att.item_prelu.alpha"], lambda alpha: alpha[0]),
    **scorer("evolution.unit.scorer", "layers", "att", 3),
    "evolution.augru.input_GE": (["augru.gate.kernel", "augru.cand.kernel"],
                                 lambda gate, candidate: gates_first(12)(gate[:12], candidate[:12]).T),
    "evolution.augru.recurrent_GH": (["augru.gate.kernel", "augru.cand.kernel"],
                                     lambda gate, candidate: gates_first(12)(gate[12:], candidate[12:]).T),
    "evolution.augru.bias_G": (["augru.gate.bias", "augru.cand.bias"], gates_first(12)),
    **scorer("auxiliary.scorer", "layers", "aux", 3),
}
WEIGHTS = {
    "din": scorer("top", "layers", "clf", 3) | slopes("top", "clf", 2),
    "dien": scorer("top", "layers", "clf", 3) | slopes("top", "clf", 2) | EVOLUTION,
    "sim": scorer("search_top", "layers", "gsu", 2) | slopes("search_top", "gsu", 1)
    | scorer("top", "layers", "esu", 3) | slopes("top", "esu", 2) | EVOLUTION,
}
TABLES = {"user": "user_emb", "target0": "item_emb", "target1": "cat_emb"}


def parts_of_ours(name, ours, theirs):
    """One of our arrays from theirs; `top` takes its inputs in the order of their concatenation."""
    arrays, change = WEIGHTS[name][ours]
    return change(*(golden(name, theirs, array) for array in arrays))


def model(name):
    model_class, settings = SETTINGS[name]
    made = model_of(model_class, history_spec([8], [24, 6], [24, 6]), optimizer=TableOptimizer(name="sgd", lr=LR),
                    preset="compat", embedding_dim=2, **settings)
    named = dict(made.named_parameters())
    assert set(named) == set(WEIGHTS[name]), "every weight has its partner in the golden file"
    with torch.no_grad():
        for ours, parameter in named.items():
            parameter.copy_(parts_of_ours(name, ours, "w"))
        for ours, theirs in TABLES.items():
            made.embeddings.set_rows(ours, golden(name, "w", theirs))
    return made


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1e-3, float(expected.abs().max())))


@every_model
def test_logits(name):
    out = "stage_two_logits" if name == "sim" else "logits"
    assert_equal(model(name).eval()(batch()).detach(), golden(name, "out", out)[:, 0])


@pytest.mark.parametrize("name", ["dien", "sim"])
def test_probabilities_of_the_auxiliary_network(name):
    made, given = model(name), batch()
    rows = made.features.rows(made.embeddings, given, length=4, negatives=4)
    _, interest = made.evolution(rows.target_BE, rows.items_BLE, rows.mask_BL)
    came, did_not = made.auxiliary.scores(interest, rows.items_BLE, rows.negatives_BSE)
    assert_equal(came.sigmoid().t().detach() + 1e-6, golden(name, "out", "aux_click_probs"))
    assert_equal(did_not.sigmoid().t().detach() + 1e-6, golden(name, "out", "aux_noclick_probs"))


@every_model
def test_losses_and_every_gradient(name):
    made = model(name)
    losses = made.losses(batch())
    auxiliary = losses.pop("auxiliary_loss", torch.zeros(()))
    assert_equal(sum(losses.values()).detach(), golden(name, "loss", "classification"))
    assert_equal(auxiliary.detach(), golden(name, "loss", "aux"))
    (sum(losses.values()) + auxiliary).backward()
    for ours, parameter in made.named_parameters():
        assert_equal(parameter.grad, parts_of_ours(name, ours, "g"))
    for ours, theirs in TABLES.items():
        step = golden(name, "w", theirs).double() - made.embeddings.rows_of(ours).double()
        assert_equal((step / LR).float(), golden(name, "g", theirs))


@pytest.mark.parametrize("name, parameters", [("sim", 223_212), ("dien", 193_811), ("din", 32_641)])
def test_parameter_counts_of_the_reference_configuration(name, parameters):
    made = model_of(SETTINGS[name][0], history_spec([9], [9, 9], [9, 9]), preset="compat")
    assert sum(parameter.numel() for parameter in made.parameters()) == parameters
