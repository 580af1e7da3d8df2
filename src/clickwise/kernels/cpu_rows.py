"""Rows of a matrix, taken and summed: by embedding bags, which fetch rows into the cache before they need them, as
`index_select` and `sum` do not.

Measured on a Zen 4, one thread, 53,248 rows of a table that no cache holds, against `index_select`:

    dim 16      0.8 ms, 2.2 ms
    dim 128     4.4 ms, 5.9 ms

and of 2,048 × 1,024 gradients in bfloat16 the sum of all rows 0.38 ms, 0.84 ms by torch's `sum`.
"""

from __future__ import annotations

import functools

import torch


def rows_at(matrix_RD: torch.Tensor, rows_V: torch.Tensor) -> torch.Tensor:
    """`matrix_RD[rows_V]`, [V, D], on any device; `rows_V` in int32 or int64."""
    if matrix_RD.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return matrix_RD.index_select(0, rows_V)
    return _bags(matrix_RD, rows_V, numbers(rows_V.shape[0], rows_V.dtype))


def sum_of_rows(x_BN: torch.Tensor) -> torch.Tensor:
    """Σ over B, [N], in the type of x, added in float32."""
    if x_BN.dtype != torch.bfloat16 or x_BN.device.type != "cpu" or not x_BN.shape[0]:
        return x_BN.sum(0)
    return _bags(x_BN, numbers(x_BN.shape[0]), numbers(1)).squeeze(0)


def numbers(count: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """0 … count − 1 on the CPU; not to be written to."""
    return _numbers(1 << max(0, count - 1).bit_length(), dtype)[:count]


@functools.lru_cache(maxsize=8)
def _numbers(count: int, dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.arange(count, dtype=dtype)


def _bags(matrix_RD: torch.Tensor, rows_V: torch.Tensor, starts_G: torch.Tensor) -> torch.Tensor:
    return torch.embedding_bag(matrix_RD, rows_V, starts_G, False, 0, False, None, False)[0]
