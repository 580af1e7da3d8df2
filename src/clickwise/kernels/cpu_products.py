"""Matrix products on a CPU, by oneDNN or MKL: what the CPU kernels of dense layers are made of.

torch multiplies float32 matrices on CPUs with MKL, which uses AVX-512 on processors of its own maker only: on others
up to half of the speed may be lost. oneDNN, which is inside torch too, does not lose it. But a call of oneDNN costs
12 µs more, it can neither add to what is there nor write to a part of a wider matrix, and it copies matrices that it is
to take products of columns of. So which is taken follows from the size and from what becomes of the product, by the
table `BY_MKL`; nothing is timed at run time, so that the same machine always gives the same bits.

Measured with one thread (`benchmarks/products.py`). On a Zen 3 (AVX2), 682 to 2,048 rows, MKL 70-94 GFLOP/s, oneDNN
55-86, and of products of columns 61-89 against 30-61. On a Zen 4 (AVX-512 with half as wide units), how many times as
long oneDNN takes as MKL:

    rows × inputs × outputs        new     added to what is there   of columns
      64 ×  32 ×  32   (0.07 M)    3.1              5.1                 7.0
      64 ×  96 × 288   (1.8 M)     1.28             1.50                2.2
     256 ×  96 × 288   (7 M)       1.00             1.13                1.30
     640 ×  96 × 288   (18 M)      0.97             1.08                1.16
    2048 ×  96 × 288   (57 M)      0.91             1.10                1.09
    2048 × 300 × 200   (123 M)     0.90             0.95                1.05
    2048 × 1024 × 1024 (2,147 M)   0.82             0.68                1.00

Weights that oneDNN has laid out beforehand (`kernels/prepacked.py`) are less to read. Of six matrices in turns, oneDNN
over MKL again:

    weights              rows: 1     2      4      8     64
      96 ×  288              2.6   2.1    2.1    1.8   1.17
     512 ×  256              1.7   1.07   0.90   0.91  0.91
    1024 ×  256              1.4   0.88   0.58   0.68  0.88
    1024 × 1024              1.2   0.88   0.86   0.92  0.86

Where memory is in huge pages, as in training and `bench`, the last line is 0.93, 0.83, 0.57, 0.62, 0.78.

The row for processors with AVX-VNNI too (Zen 5, whose units are twice as wide) is a guess between that and what a Zen 5
showed: recurrences were faster there with MKL below a million multiply-adds. Above that it was not measured; nor was an
Intel processor.

Both compute in full float32.

Of bfloat16 oneDNN takes products where the processor has instructions for them. Elsewhere they go by way of float32,
which every bfloat16 number is, too: the sums are float32 in both and are rounded once. Measured there, conversions
included: 38 GFLOP/s, torch's own products of bfloat16 3.
"""

from __future__ import annotations

import functools
import math
import platform
from typing import Literal, NamedTuple

import torch

from clickwise.kernels.autocast import compute_type

Becomes = Literal["new", "written", "of_columns", "packed"]


class Largest(NamedTuple):
    """The most multiply-adds of a float32 product that is MKL's, by what becomes of it."""

    new: float  # a matrix of its own
    written: float  # to what is there, or added to it: oneDNN's has to be copied there
    of_columns: float  # xᵀ y, added or not
    packed: float  # a matrix of its own, of many weights that oneDNN has laid out beforehand


NOTHING, EVERYTHING = (Largest(limit, limit, limit, limit) for limit in (0, math.inf))
BY_MKL = {  # by instructions of the processor: the first row of which it has all
    ("avx512_f", "avx_vnni"): Largest(new=2**20, written=2**23, of_columns=2**24, packed=2**18),
    ("avx512_f",): Largest(new=2**23, written=2**27, of_columns=2**30, packed=2**18),
    (): EVERYTHING,
}
MANY_WEIGHTS = 2**17  # which no cache near the core holds; of fewer oneDNN gains nothing by having them laid out


def bf16_instructions() -> str | None:
    """What this processor multiplies bfloat16 matrices with: AMX, AVX512-BF16, or None where fp32 is faster."""
    has = torch.cpu.get_capabilities() if torch.backends.mkldnn.is_available() else {}
    return "AMX" if has.get("amx_tile") else "AVX512-BF16" if has.get("avx512_bf16") else None


@functools.cache
def _is_there(dtype: torch.dtype) -> bool:
    """Whether torch's own oneDNN product is there and right (it is no public function); processors without AVX-512
    have none of bfloat16."""
    try:
        if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
            return False
        x, w, b = (torch.tensor(values, dtype=dtype) for values in ([[1, 2]], [[3, 4], [-5, 0]], [0.5, 0.5]))
        ways = (_by_mkl,) if _largest_by_mkl(dtype).new == math.inf else (_by_mkl, _by_onednn)
        return all(way(x, w, b).tolist() == [[11.5, -4.5]] for way in ways)
    except (AttributeError, RuntimeError, TypeError):
        return False


def works_for(x: torch.Tensor) -> bool:
    """Whether the products below can be taken of `x` [M, K], here and now."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # first: there a size is no number
        return False
    if x.device.type != "cpu" or x.dim() != 2 or x.numel() == 0:
        return False
    dtype = compute_type(x)
    return dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.enabled and _is_there(dtype)


@functools.cache
def _largest_by_mkl(dtype: torch.dtype) -> Largest:
    """The row of `BY_MKL` for this processor; of bf16 nothing is MKL's where oneDNN multiplies it, else all."""
    if dtype != torch.float32:
        return NOTHING if torch.ops.mkldnn._is_mkldnn_bf16_supported() else EVERYTHING
    if not torch.backends.mkl.is_available():
        return NOTHING
    has = torch.cpu.get_capabilities()
    return next(largest for needed, largest in BY_MKL.items() if all(has.get(name) for name in needed))


def is_by_mkl(x_MK: torch.Tensor, outputs: int, becomes: Becomes = "new") -> bool:
    """Whether a product of x with so many outputs is MKL's, of bfloat16 by way of float32."""
    if becomes == "packed" and x_MK.shape[1] * outputs < MANY_WEIGHTS:
        becomes = "new"
    return x_MK.numel() * outputs <= getattr(_largest_by_mkl(x_MK.dtype), becomes)


def product(x_MK: torch.Tensor, y_NK: torch.Tensor, bias_N: torch.Tensor | None = None, *,
            out: torch.Tensor | None = None) -> torch.Tensor:
    """x yᵀ + bias, [M, N]; written to `out`, of any float type, where it is given."""
    is_mkls = is_by_mkl(x_MK, y_NK.size(0), "new" if out is None else "written")
    return (_by_mkl if is_mkls else _by_onednn)(x_MK, y_NK, bias_N, out)


def _by_onednn(x_MK, y_NK, bias_N=None, out=None) -> torch.Tensor:
    made = torch.ops.mkldnn._linear_pointwise(_dense(x_MK), _dense(y_NK), bias_N, "none", [], "")
    return made if out is None else out.copy_(made)


def _by_mkl(x_MK, y_NK, bias_N=None, out=None) -> torch.Tensor:
    if x_MK.dtype == torch.float32 and (out is None or out.dtype == torch.float32):
        return torch.mm(x_MK, y_NK.t(), out=out) if bias_N is None else torch.addmm(bias_N, x_MK, y_NK.t(), out=out)
    with torch.autocast("cpu", enabled=False):  # which would cast back
        made = _by_mkl(x_MK.float(), y_NK.float(), None if bias_N is None else bias_N.float()).to(x_MK.dtype)
    return made if out is None else out.copy_(made)


def add_product_(total_MN: torch.Tensor, x_MK: torch.Tensor, y_NK: torch.Tensor) -> torch.Tensor:
    """`total`, in its place, plus x yᵀ, the product in the type of y."""
    if total_MN.dtype == x_MK.dtype == y_NK.dtype == torch.float32 and is_by_mkl(x_MK, y_NK.size(0), "written"):
        return total_MN.addmm_(x_MK, y_NK.t())
    return total_MN.add_(product(x_MK.to(y_NK.dtype), y_NK))


def _dense(x: torch.Tensor) -> torch.Tensor:
    """`x` itself, or a copy of a part cut out of a wider matrix: of such oneDNN takes products hundreds of times slower
    than of any other."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


def product_of_columns(x_BM: torch.Tensor, y_BN: torch.Tensor) -> torch.Tensor:
    """xᵀ y, [M, N]."""
    if is_by_mkl(x_BM, y_BN.size(1), "of_columns"):
        return _by_mkl(x_BM.t(), y_BN.t())
    if x_BM.dtype == torch.bfloat16:
        return x_BM.t() @ y_BN
    if y_BN.shape[1] < x_BM.shape[1]:
        return product(y_BN.t(), x_BM.t()).t()
    return product(x_BM.t(), y_BN.t())


def add_product_of_columns_(total_MN: torch.Tensor, x_BM: torch.Tensor, y_BN: torch.Tensor) -> torch.Tensor:
    """`total`, in its place, plus xᵀ y, the product in the type of y."""
    if total_MN.dtype == x_BM.dtype == y_BN.dtype == torch.float32 and is_by_mkl(x_BM, y_BN.size(1), "of_columns"):
        return total_MN.addmm_(x_BM.t(), y_BN)
    return total_MN.add_(product_of_columns(x_BM.to(y_BN.dtype), y_BN))


def added(total: torch.Tensor | None, part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`total + part` in the place of `total`; the first part becomes the total, in `dtype`."""
    if total is None:
        return part.to(dtype).contiguous()
    return total.add_(part)
