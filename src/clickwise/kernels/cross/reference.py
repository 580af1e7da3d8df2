"""The meaning of `cross`, in obvious torch; its gradient is autograd's."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clickwise.kernels.autocast import compute_type


def cross(x0_BK: torch.Tensor, layers) -> torch.Tensor:
    """As `clickwise.kernels.cross.cross`."""
    x_BK = x0_BK = x0_BK.to(compute_type(x0_BK))
    for u_RK, v_KR, bias_K in layers:
        h_BR = x_BK if u_RK is None else F.linear(x_BK, u_RK)
        x_BK = x0_BK * F.linear(h_BR, v_KR, bias_K) + x_BK
    return x_BK
