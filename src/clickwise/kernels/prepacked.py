"""Weights made ready for many products without gradients: cast, and laid out as oneDNN reads them, once.

    packed = PackedWeights()
    with torch.no_grad(), packed:
        model(batch)        # layers on a CPU take their products by `packed.product`

A plain product casts its weights every time, and lays them out anew: of few samples that is most of the work. What is
made ready is kept as long as the object is; of a weight that was written to since, it is made anew. Measured with one
thread of a Zen 4, weights of 3,456 × 512, ms of a product with the cast:

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
    """What was made of a parameter when it was at this version. Its storage then is held, so that no other can lie at
    the same address."""

    made: torch.Tensor
    parameter: nn.Parameter
    storage: torch.Tensor
    version: int

    def is_fresh(self) -> bool:
        return self.version == self.parameter._version and self.storage.data_ptr() == self.parameter.data_ptr()


class PackedWeights:
    """Parameters made ready, each at its first product. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple, _Kept] = {}
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
        if cpu_products.is_by_mkl(x_MK, len(weight_NK)):
            return cpu_products.product(x_MK, *self._ready(_rounded, dtype, weight_NK, bias_N))
        bias_N, = self._ready(_cast, dtype, bias_N)
        if isinstance(weight_NK, nn.Parameter) and packing_works(dtype):
            packed, = self._ready(_pack, dtype, weight_NK)
            return _product_of_packed(x_MK, packed, bias_N)
        return cpu_products.product(x_MK, *self._ready(_cast, dtype, weight_NK), bias_N)

    def _ready(self, make: Callable, dtype: torch.dtype, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
        return [tensor if tensor is None or make is not _pack and tensor.dtype == dtype == torch.float32 else
                self._made(make, dtype, tensor) for tensor in tensors]

    def _made(self, make: Callable, dtype: torch.dtype, tensor: torch.Tensor) -> torch.Tensor:
        """`make(tensor, dtype)`; of a parameter it is kept."""
        if not isinstance(tensor, nn.Parameter) or tensor.is_inference():
            return make(tensor, dtype)
        key = make, dtype, id(tensor)
        kept = self._kept.get(key)
        if kept is None or not kept.is_fresh():
            storage = tensor.detach()
            self._kept[key] = kept = _Kept(make(storage, dtype), tensor, storage, tensor._version)
        return kept.made


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype)


def _rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values that the tensor has in this type, in float32: what MKL takes products of."""
    return tensor.to(dtype).float()


def _pack(weight_NK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight_NK.to(dtype).contiguous())


def _product_of_packed(x_MK: torch.Tensor, packed: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_MK.contiguous(), packed, bias_N, "none", [], "")


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether torch's function that lays weights out (it is not public) is there and right."""
    try:
        x, w, b = (torch.tensor(values, dtype=dtype) for values in ([[1, 2]], [[3, 4], [-5, 0]], [0.5, 0.5]))
        return _product_of_packed(x, _pack(w, dtype), b).tolist() == [[11.5, -4.5]]
    except (AttributeError, RuntimeError, TypeError):
        return False
