"""Gated recurrences over histories: GRU, and AUGRU in the paper's and in the reference's form."""

from __future__ import annotations

from typing import Literal

import torch

from clickwise.kernels import cpu_products
from clickwise.kernels.augru import cpu, reference

Form = Literal["gru", "paper", "compat"]


def recurrence(x_LBE: torch.Tensor, input_GE: torch.Tensor, bias_G: torch.Tensor, weight_GH: torch.Tensor,
               inner_bias_H: torch.Tensor | None, form: Form, *, attention_LB: torch.Tensor | None = None,
               mask_LB: torch.Tensor | None = None, every_state: bool = True) -> torch.Tensor:
    """The state after every position [L, B, H], or with `every_state` false after the last one [B, H]; float32.

    Time comes first, and G = 3 H: the gates z and r, then the candidate n. With W x for the input's part (bias_G
    included) and U for `weight_GH`, position by position from h = 0:

        gru      z, r = σ(W x + U h)   n = tanh(W x + r ⊙ (U h + inner bias))   h ← z ⊙ h + (1 − z) ⊙ n
        paper    the same gates and candidate; with z' = a z                    h ← (1 − z') ⊙ h + z' ⊙ n
        compat   z, r = σ(W x + U h)   n = tanh(W x + U (r ⊙ h))                with z' = (1 − a) z as in gru

    inner_bias_H  None: 0. Not of compat
    attention_LB  a, of paper and compat: a = 0 leaves the state as it is (paper), or makes a plain GRU (compat)
    mask_LB       false: padding, which leaves the state as it is; None: no position is padding. Before a sample's first
                  position it costs nothing where the samples with the longest histories come first
    Sources: Cho et al. 2014 as in cuDNN (gru); Zhou et al. 2019, "Deep Interest Evolution Network", equations 2-5, 14
    and 15 (paper, its update gate u is z); compat is what the code of its authors and NVIDIA's computes.
    """
    run = cpu.recurrence if x_LBE.dim() == 3 and cpu_products.works_for(x_LBE.flatten(0, 1)) else reference.recurrence
    return run(x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, form, attention_LB=attention_LB, mask_LB=mask_LB,
               every_state=every_state)
