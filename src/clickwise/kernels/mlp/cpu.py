"""`mlp` at CPU speed: oneDNN for every product with its bias, ReLU and the mask of its gradient in place.

oneDNN could apply ReLU inside the product, but its ReLU makes 0 of NaN: a network that has diverged would look
healthy. torch's keeps NaN.
"""

from __future__ import annotations

import torch

from clickwise.kernels import prepacked
from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cpu_products import added, product, product_of_columns
from clickwise.kernels.cpu_rows import sum_of_rows

CHUNK = 2048  # samples that backward takes at a time; measured: 6 % of a step at batch 16,384


def mlp(x_BK: torch.Tensor, weights, biases, relu_last: bool = True) -> torch.Tensor:
    """As `clickwise.kernels.mlp.mlp`."""
    x_BK = x_BK.to(compute_type(x_BK))
    if (packed := prepacked.active()) is not None:
        for layer, (weight_HK, bias_H) in enumerate(zip(weights, biases, strict=True)):
            x_BK = packed.product(x_BK, weight_HK, bias_H)
            x_BK = x_BK.relu_() if relu_last or layer < len(weights) - 1 else x_BK
        return x_BK
    return _MLP.apply(x_BK, relu_last, len(weights), *weights, *biases)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, relu_last, layers, *parameters):
        weights = [weight.to(x.dtype) for weight in parameters[:layers]]
        activations = [x]
        for layer, (weight, bias) in enumerate(zip(weights, parameters[layers:], strict=True)):
            y = product(activations[-1], weight, bias.to(x.dtype))
            activations.append(y.relu_() if relu_last or layer < layers - 1 else y)
        ctx.relu_last, ctx.dtypes = relu_last, [parameter.dtype for parameter in parameters]
        ctx.save_for_backward(*weights, *activations)
        return activations[-1]

    @staticmethod
    def backward(ctx, grad):
        saved, layers = ctx.saved_tensors, len(ctx.dtypes) // 2
        weights, activations = saved[:layers], saved[layers:]
        of_weights: list[torch.Tensor | None] = [None] * layers
        of_biases: list[torch.Tensor | None] = [None] * layers
        of_x: list[torch.Tensor] = []
        for at in range(0, len(grad), CHUNK):
            here = slice(at, at + CHUNK)
            grad_c, mine = grad[here], False  # mine: a tensor made here, which may be written to
            for layer in reversed(range(layers)):
                x, y = activations[layer][here], activations[layer + 1][here]
                if ctx.relu_last or layer < layers - 1:
                    if mine:
                        torch.ops.aten.threshold_backward.grad_input(grad_c, y, 0.0, grad_input=grad_c)
                    else:
                        grad_c = torch.ops.aten.threshold_backward(grad_c, y, 0.0)
                if ctx.needs_input_grad[3 + layer]:
                    of_weights[layer] = added(of_weights[layer], product_of_columns(grad_c, x), ctx.dtypes[layer])
                if ctx.needs_input_grad[3 + layers + layer]:
                    of_biases[layer] = added(of_biases[layer], sum_of_rows(grad_c), ctx.dtypes[layers + layer])
                if layer > 0:
                    grad_c, mine = product(grad_c, weights[layer].t()), True
                elif ctx.needs_input_grad[0]:
                    of_x.append(product(grad_c, weights[0].t()))
        grad_x = torch.cat(of_x) if len(of_x) > 1 else of_x[0] if of_x else None
        return (grad_x, None, None, *of_weights, *of_biases)
