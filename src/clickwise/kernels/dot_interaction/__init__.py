"""Pairwise dot products of a sample's vectors: the interaction of DLRM."""

from __future__ import annotations

import torch

from clickwise.kernels import gpu
from clickwise.kernels.dot_interaction import cpu, reference


def dot_interaction(z0_BD: torch.Tensor | None, rows_BFD: torch.Tensor | None, pad_to: int = 8) -> torch.Tensor:
    """[B, D + pairs, zeros up to a multiple of `pad_to`]: z0, then the dot products of X = [z0, rows].

    The pairs are the strictly lower triangle of X Xᵀ by rows: (1,0), (2,0), (2,1), (3,0), …
    Without rows (None, or F = 0) there are no pairs. Without numerical features (z0 None) X is the rows alone, and
    their sum stands where z0 would, so that a single feature still says something.
    Source: Naumov et al. 2019, "Deep Learning Recommendation Model for Personalization and Recommendation Systems".
    """
    run = reference.dot_interaction
    if z0_BD is not None and rows_BFD is not None and rows_BFD.shape[1] > 0:
        if (on_gpu := gpu.kernels_for(rows_BFD, "dot_interaction")) and on_gpu.supports(z0_BD, rows_BFD):
            run = on_gpu.dot_interaction
        elif takes_joined(rows_BFD.device):
            run = cpu.dot_interaction  # an exported graph has to hold for any number of samples: no loop over them
    return run(z0_BD, rows_BFD, pad_to)


def dot_interaction_of(x_BTD: torch.Tensor, pad_to: int = 8) -> torch.Tensor:
    """`dot_interaction` of X = [z0, rows] that stands in one tensor already: no part of it is copied."""
    if takes_joined(x_BTD.device):
        return cpu.dot_interaction_of(x_BTD, pad_to)
    return dot_interaction(x_BTD[:, 0], x_BTD[:, 1:], pad_to)


def takes_joined(device: torch.device) -> bool:
    """Whether `dot_interaction_of` is the faster way here; the kernels of a GPU take z0 and rows apart, and so does a
    graph that is exported."""
    return device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing())


def output_width(features: int, dim: int, *, z0: bool = True, pad_to: int = 8) -> tuple[int, int]:
    """(columns of `dot_interaction` with its padding, columns that are no padding) for F = `features`."""
    vectors = features + int(z0)
    used = dim + vectors * (vectors - 1) // 2
    return used + -used % pad_to, used
