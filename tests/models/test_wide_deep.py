import json

import pytest
import torch
from model_inputs import batch_of, dense_parameters, model_of, spec_of

from clickwise import wiring
from clickwise.batch import Ragged
from clickwise.errors import RecipeError
from clickwise.layers.cross_ids import cross_ids
from clickwise.models.wide_deep import WideDeep, WideDeepConfig
from clickwise.recipe import parse

# The published systems' categorical features: rows and dims.
TWO_THOUSAND_21 = [(300_000, 128), (4, 16), (100_000, 128), (4000, 64), (1000, 64), (2500, 64), (300, 64), (2000, 64),
                   (250_000, 128), (2500, 64), (4000, 64), (1000, 64), (5000, 128)]
WITH_19 = [(rows, 19 if dim == 16 else dim) for rows, dim in TWO_THOUSAND_21]
MULTI_HOT = [*WITH_19, (350, 64), (10_000, 64), (100, 64)]
PROFILES = [(300_000, 128), (100_000, 128), (4000, 64), (2500, 64), (2000, 64), (1000, 64), (300, 64), (6, 0), (3, 0),
            (3, 0), (2, 0), (2, 0), (10_000, 64), (350, 64), (100, 64), (250_000, 128), (4000, 64), (2500, 64),
            (1000, 64), (350, 64), (10_000, 64), (100, 64)]


@pytest.mark.parametrize("features, numericals, wide, deep, width, total", [
    (TWO_THOUSAND_21, 13, 672_318, 84_947_264, 1053, 90_898_303),
    (WITH_19, 13, 672_318, 84_947_276, 1056, 90_901_387),
    (MULTI_HOT, 13, 682_768, 85_616_076, 1248, 91_777_245),
    (PROFILES, 32, 688_249, 85_644_800, 1328, 91_893_370),
], ids=["13 one-hot", "platform of 19", "3 multi-hot", "with profiles"])
def test_parameter_counts_of_the_published_models(features, numericals, wide, deep, width, total):
    rows, dims = zip(*features, strict=True)
    settings = {"embedding_sizes": {f"c{i}": dim for i, dim in enumerate(dims)}}
    tables = WideDeep.tables(spec_of(numericals, rows), WideDeepConfig(**settings))
    in_tables = {part: sum(t.rows * t.dim for t in tables if t.part == part) for part in WideDeep.parts}
    assert in_tables == {"wide": wide - numericals - 1, "deep": deep}
    # The dense layers depend on rows only where a feature enters one-hot.
    small = spec_of(numericals, [rows if dim == 0 else 3 for rows, dim in features])
    model = model_of(WideDeep, small, **settings)
    assert model.deep.hidden[0].in_features == width
    assert sum(in_tables.values()) + dense_parameters(model) == total


def bags_of(column):
    if isinstance(column, Ragged):
        ends, values = column.offsets.tolist(), column.values_V.tolist()
        return [values[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    return [[i] for i in column.tolist()]


def plain_logit(model, spec, batch, row, mean):
    """One sample's logit by loops, its parts in float64."""
    state = {name: value.double() for name, value in model.state_dict().items()}
    numericals = batch.numerical[row].double()
    wide = state["wide.bias"][0] + numericals @ state["wide.weight_N"]
    inputs = [numericals]
    for feature, column in zip(spec.channel("categorical"), batch.categorical, strict=True):
        bag = bags_of(column)[row]
        wide = wide + sum(state[f"wide.embeddings.tables.{feature.name}.weight"][i, 0] for i in bag)
        key = f"deep.embeddings.tables.{feature.name}.weight"
        if key not in state:
            inputs.append(torch.eye(feature.cardinality, dtype=torch.float64)[bag[0]])
            continue
        rows = [state[key][i] for i in bag] or [torch.zeros(state[key].shape[1], dtype=torch.float64)]
        inputs.append(sum(rows) / (len(rows) if mean else 1))
    one_hot = [x for x in inputs[1:] if len(x) == 5]  # of the feature c0, which stands before the embeddings
    h = torch.cat([inputs[0], *one_hot, *(x for x in inputs[1:] if len(x) != 5)])
    for layer in range(2):
        h = (state[f"deep.hidden.{layer}.weight"] @ h + state[f"deep.hidden.{layer}.bias"]).relu()
    return wide, (state["deep.output.weight"] @ h + state["deep.output.bias"])[0]


def shaken(model):
    """The model with weights that no part of it starts with 0."""
    for engine in wiring.engines_of(model):
        for table in engine.tables:
            engine.set_rows(table.name, torch.nn.init.normal_(engine.rows_of(table.name)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("combiner", ["sum", "mean"])
@pytest.mark.parametrize("model_type", ["wide", "deep", "wide_deep"])
def test_logits_equal_the_plainest_formula(combiner, model_type):
    spec = spec_of(3, [5, 60, 30, 7], (None, None, 4, 3))
    sizes = {"embedding_sizes": {"c0": 0, "c1": 6, "c2": 2}, "embedding_dim": 3}
    model = shaken(model_of(WideDeep, spec, deep_hidden=(16, 8), combiner=combiner, **sizes))
    batch = batch_of(spec, 20)
    part = model_of(WideDeep, spec, deep_hidden=(16, 8), combiner=combiner, model_type=model_type, **sizes)
    kept = part.state_dict()
    part.load_state_dict({name: value for name, value in model.state_dict().items() if name in kept})
    with torch.no_grad():
        found_B = part.eval()(batch)
    for row in range(20):
        wide, deep = plain_logit(model, spec, batch, row, combiner == "mean")
        expected = {"wide": wide, "deep": deep, "wide_deep": wide + deep}[model_type]
        assert float(found_B[row]) == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
    assert {name.split(".")[0] for name in kept} == set(model_type.split("_"))


# Crosses --------------------------------------------------------------------------------------------------------------


def plain_hash(ids, buckets):
    h = 0
    for i in (*ids, 0):
        h = (h ^ (i % 2**64)) * 0x9E3779B97F4A7C15 % 2**64
        h ^= h >> 32
    return h % 2**63 % buckets


@pytest.mark.parametrize("buckets", [1, 7, 1000, 2**20])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_ids_of_crosses_are_the_documented_hash(buckets, dtype):
    high = min(torch.iinfo(dtype).max, 10**12)
    columns = [torch.randint(high, (50,), generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(3)]
    found = cross_ids(columns, buckets).tolist()
    assert found == [plain_hash(ids, buckets) for ids in zip(*(column.tolist() for column in columns), strict=True)]


def test_ids_of_crosses_stay_what_they_are():
    columns = [torch.tensor([0, 1, 2, 100_000]), torch.tensor([0, 2, 1, 7])]
    assert cross_ids(columns, 1000).tolist() == [0, 344, 46, 268]


def test_crosses_fill_their_buckets_evenly():
    a, b = torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij")
    for buckets in (100, 128):
        counts = torch.bincount(cross_ids([a.flatten(), b.flatten()], buckets), minlength=buckets)
        expected = 90_000 / buckets
        assert 0.5 < float(((counts - expected) ** 2 / expected).mean()) < 1.5  # chi-square per bucket


def test_a_cross_has_a_weight_for_its_values_together():
    spec = spec_of(0, [5, 6, 7])
    model = shaken(model_of(WideDeep, spec, model_type="wide", crosses=[["c2", "c0"]], cross_buckets=50))
    plain = model_of(WideDeep, spec, model_type="wide")
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "*" not in name})
    batch = batch_of(spec, 30)
    of_cross = model.state_dict()["wide.embeddings.tables.c2*c0.weight"]
    assert of_cross.shape == (50, 1)
    pairs = zip(batch.categorical[2].tolist(), batch.categorical[0].tolist(), strict=True)
    ids = [plain_hash(pair, 50) for pair in pairs]
    with torch.no_grad():
        torch.testing.assert_close(model(batch) - plain(batch), of_cross[ids, 0])
    before = of_cross.clone()
    model.train().losses(batch)["log_loss"].backward()
    moved = (model.state_dict()["wide.embeddings.tables.c2*c0.weight"] != before)[:, 0]
    assert moved.nonzero()[:, 0].tolist() == sorted(set(ids))


# First values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init, wide, deep", [("clickwise", 0.0, (1 / 5000) ** 0.5 / 3**0.5), ("tf2", 0.0, "glorot"),
                                              ("tf2_2021", 0.05 / 3**0.5, "glorot"), ("tf1", 0.0, None)])
def test_first_values(init, wide, deep):
    model = model_of(WideDeep, spec_of(4, [5000]), embedding_dim=32, deep_hidden=(64, 64), init=init)
    of_wide, of_deep = (engine.rows_of("c0") for engine in wiring.engines_of(model))
    if deep is None:
        deep = 32**-0.5 * 0.87962566
        assert float(of_deep.abs().max()) <= 2 * 32**-0.5
    elif deep == "glorot":
        deep = (2 / 5032) ** 0.5
        assert 2 * deep < float(of_deep.abs().max()) <= 2 * deep / 0.87962566
    assert float(of_deep.std()) == pytest.approx(deep, rel=0.02)
    assert float(of_wide.std()) == pytest.approx(wide, rel=0.05, abs=1e-9)
    assert bool(model.wide.weight_N.any()) == (init == "tf2_2021") and not model.wide.bias.any()
    for layer in (*model.deep.hidden, model.deep.output):
        assert not layer.bias.any()
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound


# A person's mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings, words", [
    (dict(embedding_sizes={"c0": 4}), "(?s)no size for the feature 'c1'.*embedding_dim"),
    (dict(embedding_sizes={"c0": 4, "c1": 4, "c9": 4}), "c9"),
    (dict(embedding_sizes={"n0": 4}, embedding_dim=4), "(?s)embedding_sizes.n0.*no such categorical"),
    (dict(embedding_sizes={"c1": 0}, embedding_dim=4), "(?s)c1.*0 .one-hot. for a multi-hot"),
    (dict(embedding_sizes={"c2": 0}, embedding_dim=4), "(?s)c2.*5,000 ids.*at most 1024"),
    (dict(crosses=[["c0", "c1"]]), "multi-hot feature 'c1'"),
    (dict(crosses=[["c0", "c_2"]]), "(?s)'c_2'.*did you mean 'c2'"),
])
def test_settings_that_do_not_fit_the_features(settings, words):
    with pytest.raises(RecipeError, match=words):
        model_of(WideDeep, spec_of(1, [5, 6, 5000], (None, 3, None)), **settings)


@pytest.mark.parametrize("wrong, words", [
    ({"crosses": [["a"]]}, "two or more"), ({"crosses": [["a", "a"]]}, "two or more"),
    ({"deep_hidden": [0]}, "positive"),
    ({"model_type": "deep", "crosses": [["a", "b"]]}, "inputs of the wide part"), ({"cross_buckets": 0}, "above 0"),
    ({"model_type": "wide_and_deep"}, "wide_deep"), ({"embedding_sizes": {"a": -1}}, "embedding_sizes.a"),
    ({"embedding_sizes": {"a": "x"}}, "embedding_sizes.a"), ({"embedding_dim": 0}, "embedding_dim"),
    ({"init": "tf3"}, "tf2"), ({"dropout": 1.0}, "below 1"),
])
def test_refuses_a_network_that_cannot_be(wrong, words):
    with pytest.raises(RecipeError, match=words):
        parse(WideDeepConfig, wrong, "recipe.model")


def test_sizes_from_a_json_file_become_part_of_the_recipe(tmp_path):
    file = tmp_path / "sizes.json"
    file.write_text(json.dumps({"c0": 3, "c1": 5}))
    config = parse(WideDeepConfig, {"embedding_sizes": str(file)}, "recipe.model")
    assert config.embedding_sizes == {"c0": 3, "c1": 5}
    for content, words in (("{", "Expecting"), ("[1]", r"\[1\]"), ('{"c0": "3"}', "c0: '3'"),
                           ('{"c0": 3.5}', "c0: 3.5")):
        file.write_text(content)
        with pytest.raises(RecipeError, match=words):
            parse(WideDeepConfig, {"embedding_sizes": str(file)}, "recipe.model")
    with pytest.raises(RecipeError, match="no such file"):
        parse(WideDeepConfig, {"embedding_sizes": str(tmp_path / "none.json")}, "recipe.model")
