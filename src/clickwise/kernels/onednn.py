"""Matrix products by oneDNN on a CPU: what the CPU kernels of dense layers are made of.

torch multiplies float32 matrices on CPUs with MKL, which on processors of other makers than its own leaves half of
the speed unused; oneDNN, which is inside torch too, does not. Both compute in full float32.
"""

from __future__ import annotations

import functools
import platform

import torch

from clickwise.kernels.autocast import compute_type


@functools.cache
def _is_there(dtype: torch.dtype) -> bool:
    """Whether torch's own oneDNN product is there and right (it is no public function); processors without AVX-512
    have none of bfloat16."""
    try:
        if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
            return False
        x, w, b = (torch.tensor(values, dtype=dtype) for values in ([[1, 2]], [[3, 4], [-5, 0]], [0.5, 0.5]))
        return product(x, w, b).tolist() == [[11.5, -4.5]]
    except (AttributeError, RuntimeError, TypeError):
        return False


def works_for(x: torch.Tensor) -> bool:
    """Whether the products below can be taken of `x` [M, K], here and now."""
    if x.device.type != "cpu" or x.dim() != 2 or x.numel() == 0:
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    dtype = compute_type(x)
    return dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.enabled and _is_there(dtype)


def product(x_MK: torch.Tensor, y_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> torch.Tensor:
    """x yᵀ + bias, [M, N]."""
    return torch.ops.mkldnn._linear_pointwise(_dense(x_MK), _dense(y_NK), bias_N, "none", [], "")


def _dense(x: torch.Tensor) -> torch.Tensor:
    """`x` itself, or a copy of a part cut out of a wider matrix: of such oneDNN takes products hundreds of times slower
    than of any other."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


def product_of_columns(x_BM: torch.Tensor, y_BN: torch.Tensor) -> torch.Tensor:
    """xᵀ y, [M, N]."""
    if x_BM.dtype != torch.float32:
        return x_BM.t() @ y_BN
    if y_BN.shape[1] < x_BM.shape[1]:
        return product(y_BN.t(), x_BM.t()).t()
    return product(x_BM.t(), y_BN.t())


def added(total: torch.Tensor | None, part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`total + part` in the place of `total`; the first part becomes the total, in `dtype`."""
    if total is None:
        return part.to(dtype).contiguous()
    return total.add_(part)
