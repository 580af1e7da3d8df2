"""What an enclosing `torch.autocast` asks of a kernel."""

from __future__ import annotations

import torch


def compute_type(x: torch.Tensor) -> torch.dtype:
    """The type in which a kernel that is given `x` computes: that of an autocast on its device, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
