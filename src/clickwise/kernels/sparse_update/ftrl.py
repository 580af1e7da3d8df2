"""One step of FTRL-Proximal on whole tensors, in place: for the rows of tables and for dense parameters.

Source: McMahan et al. 2013, "Ad click prediction: a view from the trenches", algorithm 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def ftrl_(weight: torch.Tensor, accumulator: torch.Tensor, linear: torch.Tensor, grad: torch.Tensor, *, lr: float,
          base_lr: float, l1: float, l2: float, beta: float) -> None:
    """Steps the first three, all of one shape. `base_lr` is the rate that penalties are held to, `lr` this step's."""
    before = accumulator.sqrt()
    root = accumulator.addcmul_(grad, grad).sqrt()
    linear.add_(grad, alpha=lr / base_lr).addcmul_(before.neg_().add_(root), weight, value=-1.0 / base_lr)
    root.add_(beta).div_(-base_lr)
    torch.div(F.softshrink(linear, l1), root.sub_(l2) if l2 else root, out=weight)
