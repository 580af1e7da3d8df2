"""What a step must compute and move, per sample, and what was predicted of it before anything ran on a GPU.

Activations are in 2 bytes, tables and their optimizer's states in 4. Assumed: products with bias, ReLU and its
derivative inside, rows written where the next layer reads them, one pass over each layer's values where element-wise
work is left, weights too small to count. Ids and numericals count 89 B in Criteo's data.
"""

from __future__ import annotations

from itertools import pairwise

from clickwise.feature_spec import FeatureSpec
from clickwise.training_recipe import Recipe

# Samples/s on one H100, with the changes that were made before the first measurement.
PREDICTED_STEPS = {("dlrm", 65536): 14e6, ("dcnv2", 65536): 3.7e6, ("wide_deep", 131072): 12e6, ("sim", 131072): 2.9e6,
                   ("sim", 4096): 0.5e6, ("dien", 4096): 0.6e6, ("din", 4096): 2.7e6}
# Samples/s of the systems that these recipes are from, on one A100, in mixed precision.
PUBLISHED_STEPS = {("dlrm", 65536): 4.55e6, ("dcnv2", 65536): 1.37e6, ("wide_deep", 131072): 3.07e6,
                   ("sim", 131072): 0.565e6}
PUBLISHED_INFERENCE = {("dlrm", 64): 0.46e6, ("dlrm", 2048): 8.42e6, ("dlrm", 32768): 14.8e6, ("dcnv2", 2048): 1.31e6,
                       ("wide_deep", 4096): 0.614e6, ("wide_deep", 131072): 2.92e6, ("sim", 4096): 0.67e6,
                       ("sim", 131072): 1.48e6}


def work_of_step(recipe: Recipe, spec: FeatureSpec, distinct: float) -> tuple[float, float] | None:
    """(operations, bytes) of a training step per sample; None for models that are not reckoned here.

    distinct   share of the ids whose rows no other id of the batch shares: only these rows move
    """
    name, config = recipe.model_name, recipe.model
    if name == "sim":
        return 10.0e6, 60e3  # of hand-written kernels, that read long histories once; at the published widths
    if name not in ("dlrm", "dcnv2", "wide_deep"):
        return None
    features, numericals = spec.channel("categorical"), len(spec.channel("numerical"))
    if name == "wide_deep":
        sizes = config.embedding_sizes or {feature.name: config.embedding_dim for feature in features}
        dims = [sizes.get(feature.name, config.embedding_dim) for feature in features]
    else:
        dims = [config.embedding_dim] * len(features)
    rows = sum(dims)
    operations, moved = 0.0, _tables(rows, distinct, recipe, name)
    if name == "wide_deep":
        stacks = [(numericals + rows, *config.deep_hidden, 1)]
    else:
        stacks = [(numericals, *config.bottom_mlp)]
        vectors = len(features) + 1
        interacted = config.embedding_dim + vectors * (vectors - 1) // 2
        width = interacted if name == "dlrm" else config.bottom_mlp[-1] + rows
        stacks.append((width, *config.top_mlp, 1))
    if name == "dlrm":
        # Both directions read the vectors; forward writes what backward reads the gradient of; backward writes theirs.
        operations += 3 * vectors * (vectors - 1) * config.embedding_dim
        moved += 2 * (3 * vectors * config.embedding_dim + 2 * interacted)
    if name == "dcnv2":
        rank = config.cross_rank or width
        operations += config.cross_layers * 3 * 2 * (2 * rank * width if config.cross_rank else width * width)
        moved += config.cross_layers * 2 * (16 * width + 6 * rank)
    for stack in stacks:
        for inputs, outputs in pairwise(stack):
            operations += 3 * 2 * inputs * outputs
            moved += 2 * (4 * inputs + 3 * outputs)
    return operations, moved


def _tables(values: int, distinct: float, recipe: Recipe, name: str) -> float:
    """Bytes of look-up and update of `values` numbers per sample: the rows read, written as 2 bytes each, gradients
    read, and rows and states read and written."""
    optimizer = recipe.part("deep" if name == "wide_deep" else "").table_optimizer.name
    states = {"sgd": 0, "rowwise_adagrad": 0, "adagrad": 1, "rmsprop": 1, "adam": 2, "ftrl": 2}[optimizer]
    return values * (distinct * 4 + 2 + 2 + distinct * 8 * (1 + states))


def floor_ms(work: tuple[float, float], samples: int, ceilings: dict[str, float]) -> float:
    """The least time that a step of so many samples can take under the card's measured ceilings."""
    operations, moved = work
    return 1e3 * samples * max(operations / ceilings["operations_per_s"], moved / ceilings["bytes_per_s"])
