"""The meaning of `recurrence`, in obvious torch; its gradient is autograd's."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def recurrence(x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, form, *, attention_LB=None, mask_LB=None,
               every_state=True) -> torch.Tensor:
    """As `clickwise.kernels.augru.recurrence`."""
    x_LBG = F.linear(x_LBE, input_GE, bias_G)
    width = weight_GH.shape[1]
    weight_ZR, weight_N = weight_GH[:2 * width], weight_GH[2 * width:]
    h_BH = torch.zeros(x_LBG.shape[1], width, device=x_LBG.device)
    states = []
    for position, x_BG in enumerate(x_LBG.float()):
        gates_BG = torch.sigmoid(x_BG[:, :2 * width] + F.linear(h_BH, weight_ZR).float())
        z_BH, r_BH = gates_BG.split(width, dim=1)
        if form == "compat":
            n_BH = torch.tanh(x_BG[:, 2 * width:] + F.linear(r_BH * h_BH, weight_N).float())
        else:
            n_BH = torch.tanh(x_BG[:, 2 * width:] + r_BH * F.linear(h_BH, weight_N, inner_bias_H).float())
        keep_BH = z_BH
        if form != "gru":
            a_B1 = attention_LB[position, :, None].float()
            keep_BH = 1 - a_B1 * z_BH if form == "paper" else (1 - a_B1) * z_BH
        new_BH = keep_BH * h_BH + (1 - keep_BH) * n_BH
        h_BH = new_BH if mask_LB is None else torch.where(mask_LB[position, :, None], new_BH, h_BH)
        states.append(h_BH)
    if not every_state:
        return h_BH
    return torch.stack(states) if states else x_LBG.new_zeros(0, x_LBG.shape[1], width, dtype=torch.float32)
