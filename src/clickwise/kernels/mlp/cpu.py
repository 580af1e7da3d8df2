"""`mlp` at CPU speed: oneDNN for every product with its bias, ReLU and the mask of its gradient in place.

torch multiplies float32 matrices on CPUs with MKL, which on processors of other makers than its own leaves half of
the speed unused; oneDNN, which is inside torch too, does not. Both compute in full float32. oneDNN could apply ReLU
inside the product, but its ReLU makes 0 of NaN: a network that has diverged would look healthy. torch's keeps NaN.
"""

from __future__ import annotations

import functools
import platform

import torch

CHUNK = 2048  # samples that backward takes at a time; measured: 6 % of a step at batch 16,384


@functools.cache
def _onednn() -> bool:
    """Whether torch's own oneDNN product is there and right (it is no public function)."""
    try:
        if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
            return False
        x, w, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [-5.0, 0.0]]), torch.tensor([0.5, 0.5])
        return _product(x, w, b).tolist() == [[11.5, -4.5]]
    except (AttributeError, RuntimeError, TypeError):
        return False


def works_for(x: torch.Tensor) -> bool:
    if x.device.type != "cpu" or x.dim() != 2 or len(x) == 0 or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.enabled and _onednn()


def mlp(x_BK: torch.Tensor, weights, biases, relu_last: bool = True) -> torch.Tensor:
    """As `clickwise.kernels.mlp.mlp`."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_BK.dtype
    return _MLP.apply(x_BK.to(dtype), relu_last, len(weights), *weights, *biases)


def _product(x_MK: torch.Tensor, y_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> torch.Tensor:
    """x yᵀ + bias, [M, N]."""
    return torch.ops.mkldnn._linear_pointwise(x_MK, y_NK, bias_N, "none", [], "")


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, relu_last, layers, *parameters):
        weights = [weight.to(x.dtype) for weight in parameters[:layers]]
        activations = [x]
        for layer, (weight, bias) in enumerate(zip(weights, parameters[layers:], strict=True)):
            y = _product(activations[-1], weight, bias.to(x.dtype))
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
        grad_x = torch.empty_like(activations[0]) if ctx.needs_input_grad[0] else None
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
                    of_weights[layer] = _added(of_weights[layer], _product_of_columns(grad_c, x), ctx.dtypes[layer])
                if ctx.needs_input_grad[3 + layers + layer]:
                    of_biases[layer] = _added(of_biases[layer], grad_c.sum(0), ctx.dtypes[layers + layer])
                if layer > 0:
                    grad_c, mine = _product(grad_c, weights[layer].t()), True
                elif grad_x is not None:
                    grad_x[here] = _product(grad_c, weights[0].t())
        return (grad_x, None, None, *of_weights, *of_biases)


def _product_of_columns(x_BM: torch.Tensor, y_BN: torch.Tensor) -> torch.Tensor:
    """xᵀ y, [M, N]."""
    if x_BM.dtype != torch.float32:
        return x_BM.t() @ y_BN
    if y_BN.shape[1] < x_BM.shape[1]:
        return _product(y_BN.t(), x_BM.t()).t()
    return _product(x_BM.t(), y_BN.t())


def _added(total: torch.Tensor | None, part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if total is None:
        return part.to(dtype).contiguous()
    return total.add_(part)
