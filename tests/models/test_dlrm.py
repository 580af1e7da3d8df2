from pathlib import Path

import pytest
import torch

from clickwise.batch import Batch, Ragged
from clickwise.embedding import build_embeddings
from clickwise.embedding.table import TableOptimizer
from clickwise.errors import RecipeError
from clickwise.models.dlrm import DLRM, DLRMConfig
from clickwise.recipe import parse
from clickwise.spec import Feature, FeatureSpec


def spec_of(numerical, cardinalities, max_hotness=()):
    hotness = max_hotness or [None] * len(cardinalities)
    numericals = {f"n{i}": Feature(f"n{i}", "float16") for i in range(numerical)}
    categoricals = {f"c{i}": Feature(f"c{i}", "int32", cardinality=rows, max_hotness=hot)
                    for i, (rows, hot) in enumerate(zip(cardinalities, hotness, strict=True))}
    channels = {"numerical": tuple(numericals), "categorical": tuple(categoricals), "label": ("label",)}
    return FeatureSpec(features={**numericals, **categoricals, "label": Feature("label", "bool")}, mappings={},
                       channels=channels, metadata={}, folder=Path())


def model_of(spec, **settings):
    torch.manual_seed(0)
    config = DLRMConfig(**settings)
    tables = DLRM.tables(spec, config)
    features = tuple(feature for table in tables for feature in table.features)
    return DLRM(spec, build_embeddings("reference", tables, features, TableOptimizer(lr=0.1)), config)


def batch_of(spec, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for feature in spec.channel("categorical"):
        if feature.is_multi_hot:
            lengths = torch.randint(0, feature.max_hotness + 1, (rows,), generator=generator)
            offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            values = torch.randint(feature.cardinality, (int(offsets[-1]),), generator=generator)
            columns.append(Ragged(values, offsets))
        else:
            columns.append(torch.randint(feature.cardinality, (rows,), generator=generator, dtype=torch.int32))
    numericals = len(spec.channel("numerical"))
    return Batch(numerical=torch.rand(rows, numericals, generator=generator).half() if numericals else None,
                 categorical=tuple(columns), label=torch.rand(rows, generator=generator) < 0.5)


def dense_parameters(model):
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("embeddings."))


def test_parameter_count_of_the_reference_configuration():
    model = model_of(spec_of(13, [3] * 26))
    assert dense_parameters(model) == 2_369_921


def plain_logits(model, spec, batch):
    """The model once more, in the plainest torch, for one-hot features."""
    z0 = batch.numerical.float()
    for layer in model.bottom:
        z0 = layer(z0).relu()
    state = model.embeddings.state_dict()
    vectors = [z0] + [state[f"tables.{feature.name}.weight"][ids.long()]
                      for feature, ids in zip(spec.channel("categorical"), batch.categorical, strict=True)]
    dots = [(vectors[i] * vectors[j]).sum(1) for i in range(len(vectors)) for j in range(i)]
    x = torch.cat([z0, torch.stack(dots, 1)], 1)
    x = torch.nn.functional.pad(x, (0, -x.shape[1] % 8))
    for layer in model.top:
        x = layer(x).relu()
    return model.output(x).squeeze(1)


def test_logits_equal_the_plain_network_in_channel_order():
    spec = spec_of(3, [50, 2, 1000, 7])
    model = model_of(spec, embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(16, 8)).eval()
    batch = batch_of(spec, 33)
    with torch.no_grad():
        torch.testing.assert_close(model(batch), plain_logits(model, spec, batch))


@pytest.mark.parametrize("numerical, cardinalities, max_hotness", [
    (0, [5, 9, 4], ()), (4, [], ()), (0, [5], ()), (1, [5], ()), (2, [5, 30], (None, 4)), (0, [7, 7], (3, 3)),
])
@pytest.mark.parametrize("rows", [1, 17])
def test_any_features_train(numerical, cardinalities, max_hotness, rows):
    spec = spec_of(numerical, cardinalities, max_hotness)
    model = model_of(spec, embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(16,), dropout=0.1, embedding_dropout=0.1)
    batch = batch_of(spec, rows)
    losses = model.losses(batch)
    assert set(losses) == {"log_loss"} and losses["log_loss"].isfinite()
    losses["log_loss"].backward()
    assert all(parameter.grad.isfinite().all() for name, parameter in model.named_parameters()
               if not name.startswith("embeddings."))
    assert model.eval()(batch).shape == (rows,)


def test_padding_has_no_weight_and_real_columns_have():
    spec = spec_of(3, [5] * 4)  # 4 + 10 used, 16 wide
    model = model_of(spec, embedding_dim=4, bottom_mlp=(4,), top_mlp=(16,))
    weight = model.top[0].weight
    assert weight.shape[1] == 16 and (weight[:, 14:] == 0).all() and (weight[:, :14] != 0).all()


def test_prediction_needs_no_label():
    spec = spec_of(2, [5, 6])
    model = model_of(spec, embedding_dim=4, bottom_mlp=(4,), top_mlp=())
    batch = batch_of(spec, 5)
    unlabelled = Batch(numerical=batch.numerical, categorical=batch.categorical)
    torch.testing.assert_close(model.eval()(unlabelled), model(batch))


@pytest.mark.parametrize("slip, words", [
    ({"embedding_dim": 16, "bottom_mlp": [32, 8]}, "end in embedding_dim=16"),
    ({"dropout": 1.0}, "below 1"), ({"top_mlp": [0]}, "positive"), ({"embedding_dims": 3}, "did you mean"),
])
def test_refuses_a_network_that_cannot_be(slip, words):
    with pytest.raises(RecipeError, match=words):
        parse(DLRMConfig, slip, "recipe.model")
