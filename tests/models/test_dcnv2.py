import pytest
import torch
from model_inputs import batch_of, dense_parameters, model_of, spec_of

from clickwise.errors import RecipeError
from clickwise.models.dcnv2 import DCNv2, DCNv2Config
from clickwise.recipe import parse


def test_parameter_counts_of_the_reference_configuration():
    model = model_of(DCNv2, spec_of(13, [3] * 26))
    assert dense_parameters(model) == 16_044_545
    assert dense_parameters(model_of(DCNv2, spec_of(16, [3] * 26))) == 16_046_081  # 13 numericals padded to 16


def plain_logits(model, spec, batch, parallel):
    """The model once more, in the plainest torch, for one-hot features."""
    z0 = batch.numerical.float()
    for layer in model.bottom:
        z0 = layer(z0).relu()
    state = model.embeddings.state_dict()
    rows = [state[f"tables.{feature.name}.weight"][ids.long()]
            for feature, ids in zip(spec.channel("categorical"), batch.categorical, strict=True)]
    x0 = x = torch.cat([z0, *rows], 1)
    for layer in model.cross:
        matrix = layer.v_KR if layer.u_RK is None else layer.v_KR @ layer.u_RK
        x = x0 * (x @ matrix.T + layer.bias_K) + x
    h = x0 if parallel else x
    for layer in model.top:
        h = layer(h).relu()
    return model.output(torch.cat([x, h], 1) if parallel else h).squeeze(1)


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("rank", [3, None])
def test_logits_equal_the_plain_network_with_tables_of_different_dims(structure, rank):
    spec = spec_of(3, [50, 2, 1000, 7])
    model = model_of(DCNv2, spec, embedding_dim=4, embedding_dims={"c2": 9, "c0": 2}, bottom_mlp=(8, 5),
                     cross_rank=rank, top_mlp=(16, 8), structure=structure).eval()
    for layer in model.cross:
        torch.nn.init.normal_(layer.bias_K)
    assert model.embeddings.dims == (2, 4, 9, 4)
    batch = batch_of(spec, 33)
    with torch.no_grad():
        torch.testing.assert_close(model(batch), plain_logits(model, spec, batch, structure == "parallel"))


def test_first_values_of_the_dense_layers_are_cut_at_two_deviations():
    model = model_of(DCNv2, spec_of(13, [3] * 26), embedding_dim=16, bottom_mlp=(512, 128), top_mlp=(1024, 256))
    for layer in [*model.bottom, *model.top]:
        std = (2 / (layer.in_features + layer.out_features)) ** 0.5
        assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.02)
        assert float(layer.weight.detach().abs().max()) < 2 * std / 0.8796
    assert float(model.top[0].bias.detach().std()) == pytest.approx(1024**-0.5, rel=0.1)


def test_without_cross_layers_only_the_deep_network_is_left():
    spec = spec_of(2, [5, 6])
    model = model_of(DCNv2, spec, embedding_dim=4, bottom_mlp=(4,), cross_layers=0, top_mlp=(8,))
    assert not any("cross" in name for name, _ in model.named_parameters())
    assert model(batch_of(spec, 3)).shape == (3,)


@pytest.mark.parametrize("wrong, words", [
    ({"cross_rank": 0}, "null for full"), ({"cross_layers": -1}, "0 or more"), ({"structure": "paralel"}, "parallel"),
    ({"embedding_dims": {"c0": 0}}, "embedding_dims.c0"), ({"dropout": 1.0}, "below 1"), ({"top_mlp": [0]}, "positive"),
])
def test_refuses_a_network_that_cannot_be(wrong, words):
    with pytest.raises(RecipeError, match=words):
        parse(DCNv2Config, wrong, "recipe.model")


def test_a_dim_for_a_feature_that_is_not_there_is_named():
    with pytest.raises(RecipeError, match="c9"):
        model_of(DCNv2, spec_of(1, [5, 6]), embedding_dims={"c9": 4})
