"""Weights made ready for many products without gradients: cast, and laid out as oneDNN reads them, once.

    packed = PackedWeights()
    with torch.no_grad(), packed:
        model(batch)        # layers on a CPU take their products by `packed.product`

A plain product casts its weights every time, and lays them out anew: of few samples that is most of the work. What is
made ready is kept as long as the object is, which should be no longer than the weights stay as they are: of one
evaluation, or of a model that is trained no more. (Of weights that torch knows to be written to since, it is made anew;
of what its fused optimizers write it does not know.) Measured with one thread of a Zen 4, weights of 3,456 × 512, ms of
a product with the cast:

    samples          1: plain  packed      64: plain  packed      2,048: plain  packed
    float32              0.114   0.108          2.51    2.23             69.1     66.8
    bfloat16             0.51    0.066          1.46    1.00             34.4     32.5
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextvars import ContextVar, Token

import torch
from torch import nn

from clickwise.kernels import cpu_products

_active: ContextVar[PackedWeights | None] = ContextVar("packed weights", default=None)


def active() -> PackedWeights | None:
    """The weights that a kernel on a CPU is to use, those of an enclosing `with`; None where gradients are on."""
    return None if torch.is_grad_enabled() else _active.get()


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What was made of a parameter. Its storage then is held, so that no other can come to lie at that address, and the
    parameter itself, so that no other gets its id."""

    made: torch.Tensor
    parameter: nn.Parameter
    storage: torch.Tensor
    address: int
    version: int


class PackedWeights:
    """Parameters made ready, each at its first product. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Callable, int, torch.dtype], _Kept] = {}
        self._tokens: list[Token] = []

    def __enter__(self) -> PackedWeights:
        self._tokens.append(_active.set(self))
        return self

    def __exit__(self, *error: object) -> None:
        _active.reset(self._tokens.pop())

    @property
    def nbytes(self) -> int:
        """Of all that was made."""
        return sum(kept.made.numel() * kept.made.element_size() for kept in self._kept.values())

    def product(self, x_MK: torch.Tensor, weight_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> torch.Tensor:
        """x Wᵀ + bias, [M, N], in the type of x, of which `cpu_products.works_for` has to be true: the same as
        `cpu_products.product` of weights in that type, but for the last bits of float32."""
        dtype = x_MK.dtype
        if bias_N is not None and bias_N.dtype != dtype:
            bias_N = self._made(torch.Tensor.to, bias_N, dtype)
        packs = isinstance(weight_NK, nn.Parameter) and packing_works(dtype)
        if cpu_products.is_by_mkl(x_MK, len(weight_NK), "packed" if packs else "new"):
            weight_NK = weight_NK if weight_NK.dtype == dtype else self._made(_rounded, weight_NK, dtype)
            return cpu_products.product(x_MK, weight_NK, bias_N)
        if packs:
            return _product_of_packed(x_MK, self._made(_packed, weight_NK, dtype), bias_N)
        return cpu_products.product(x_MK, self._made(torch.Tensor.to, weight_NK, dtype), bias_N)

    def _made(self, make: Callable, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """`make(tensor, dtype)`, which of a parameter is kept until it is written to."""
        kept = self._kept.get((make, id(tensor), dtype))
        if kept is not None and kept.version == tensor._version and kept.address == tensor.data_ptr():
            return kept.made
        made = make(tensor.detach(), dtype)
        if isinstance(tensor, nn.Parameter) and not tensor.is_inference():
            self._kept[make, id(tensor), dtype] = _Kept(made, tensor, tensor.detach(), tensor.data_ptr(),
                                                        tensor._version)
        return made


def _rounded(weight_NK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values that the weight has in this type, in float32: by way of that MKL takes products of bfloat16."""
    return weight_NK.to(dtype).float()


def _packed(weight_NK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight.default(weight_NK.to(dtype).contiguous())


def _product_of_packed(x_MK: torch.Tensor, packed: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x_MK.contiguous(), packed, bias_N, "none", [], "")


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether torch's function that lays weights out (it is not public) is there and right."""
    try:
        x, w, b = (torch.tensor(values, dtype=dtype) for values in ([[1, 2]], [[3, 4], [-5, 0]], [0.5, 0.5]))
        return _product_of_packed(x, _packed(w, dtype), b).tolist() == [[11.5, -4.5]]
    except (AttributeError, RuntimeError, TypeError):
        return False
