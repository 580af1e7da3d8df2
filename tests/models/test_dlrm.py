import pytest
import torch
from model_inputs import batch_of, dense_parameters, model_of, spec_of

from clickwise.errors import RecipeError
from clickwise.models.dlrm import DLRM, DLRMConfig
from clickwise.recipe import parse


def test_parameter_count_of_the_reference_configuration():
    model = model_of(DLRM, spec_of(13, [3] * 26))
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
    model = model_of(DLRM, spec, embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(16, 8)).eval()
    batch = batch_of(spec, 33)
    with torch.no_grad():
        torch.testing.assert_close(model(batch), plain_logits(model, spec, batch))


@pytest.mark.parametrize("numericals", [0, 3])
def test_vectors_side_by_side_instead_of_their_products(numericals):
    spec = spec_of(numericals, [50, 2, 1000], (None, 4, None))
    model = model_of(DLRM, spec, embedding_dim=4, bottom_mlp=(8, 5), top_mlp=(16,), interaction="cat").eval()
    assert model.top[0].weight.shape[1] == 3 * 4 + (5 if numericals else 0)
    assert (model.top[0].weight != 0).all()
    batch = batch_of(spec, 33)
    x = model.embeddings(batch.categorical)
    if numericals:
        z0 = batch.numerical.float()
        for layer in model.bottom:
            z0 = layer(z0).relu()
        x = torch.cat([z0, x], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(batch), model.output(model.top[0](x).relu()).squeeze(1))


def test_parameter_count_of_the_reference_with_vectors_side_by_side():
    model = model_of(DLRM, spec_of(13, [3] * 26), interaction="cat")
    assert dense_parameters(model) == 171_392 + (3456 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 512 + 512) + (
        512 * 256 + 256) + 257


def test_padding_has_no_weight_and_real_columns_have():
    spec = spec_of(3, [5] * 4)  # 4 + 10 used, 16 wide
    model = model_of(DLRM, spec, embedding_dim=4, bottom_mlp=(4,), top_mlp=(16,))
    weight = model.top[0].weight
    assert weight.shape[1] == 16 and (weight[:, 14:] == 0).all() and (weight[:, :14] != 0).all()


@pytest.mark.parametrize("wrong, words", [
    ({"embedding_dim": 16, "bottom_mlp": [32, 8]}, "end in embedding_dim=16"),
    ({"bottom_mlp": []}, "end in embedding_dim=128"), ({"interaction": "mul"}, r"dot \| cat"),
    ({"dropout": 1.0}, "below 1"), ({"top_mlp": [0]}, "positive"), ({"embedding_dims": 3}, "did you mean"),
])
def test_refuses_a_network_that_cannot_be(wrong, words):
    with pytest.raises(RecipeError, match=words):
        parse(DLRMConfig, wrong, "recipe.model")
