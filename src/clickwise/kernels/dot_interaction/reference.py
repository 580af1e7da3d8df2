"""The meaning of `dot_interaction`, in obvious torch; its gradient is autograd's."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def dot_interaction(z0_BD: torch.Tensor | None, rows_BFD: torch.Tensor | None, pad_to: int = 8) -> torch.Tensor:
    """As `clickwise.kernels.dot_interaction.dot_interaction`."""
    if z0_BD is None:
        x_BTD, first_BD = rows_BFD, rows_BFD.sum(1)
    elif rows_BFD is None:
        x_BTD, first_BD = z0_BD[:, None], z0_BD
    else:
        x_BTD, first_BD = torch.cat([z0_BD[:, None].to(rows_BFD.dtype), rows_BFD], dim=1), z0_BD
    dots_BTT, vectors = x_BTD @ x_BTD.transpose(1, 2), x_BTD.shape[1]
    out = first_BD.to(dots_BTT.dtype)
    if vectors > 1:
        i_P, j_P = torch.tril_indices(vectors, vectors, offset=-1, device=x_BTD.device)
        out = torch.cat([out, dots_BTT[:, i_P, j_P]], dim=1)
    return F.pad(out, (0, -out.shape[1] % pad_to))
