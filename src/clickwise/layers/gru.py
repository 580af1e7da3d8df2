"""GRU and AUGRU over histories; time first."""

from __future__ import annotations

import math

import torch
from torch import nn

from clickwise.kernels.augru import Form, recurrence


class GRU(nn.Module):
    """The state after every position, x [L, B, E] → float32 [L, B, H]; padding (mask false) advances nothing.

    The maths of cuDNN, torch and Keras: weights and biases hold z (how much of the state stays), r and n, in this
    order. First values as in Keras: input weights Glorot uniform, recurrent ones orthogonal, biases 0.
    """

    recurrence = staticmethod(recurrence)  # a graph for export has one of its own

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.input_GE = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, inputs)))
        self.recurrent_GH = nn.Parameter(nn.init.orthogonal_(torch.empty(3 * width, width)))
        self.input_bias_G = nn.Parameter(torch.zeros(3 * width))
        self.recurrent_bias_G = nn.Parameter(torch.zeros(3 * width))

    def forward(self, x_LBE: torch.Tensor, mask_LB: torch.Tensor | None = None) -> torch.Tensor:
        # The recurrent biases of z and r act as those of the input do.
        of_gates, of_candidate = self.recurrent_bias_G.split([2 * self.width, self.width])
        bias_G = self.input_bias_G + nn.functional.pad(of_gates, (0, self.width))
        return self.recurrence(x_LBE, self.input_GE, bias_G, self.recurrent_GH, of_candidate, "gru", mask_LB=mask_LB)


class AUGRU(nn.Module):
    """The last state of a GRU whose update gate is scaled by attention, x [L, B, E], a [L, B] → float32 [B, H].

    form   paper: a = 0 leaves the state untouched · compat: a = 0 is an ordinary update (see `kernels.augru`)
    First values: weights Glorot uniform; the gates' biases 1 in compat as there, where z is what stays; else 0.
    """

    recurrence = staticmethod(recurrence)

    def __init__(self, inputs: int, width: int, form: Form) -> None:
        super().__init__()
        self.width, self.form = width, form
        self.input_GE = nn.Parameter(torch.empty(3 * width, inputs))
        self.recurrent_GH = nn.Parameter(torch.empty(3 * width, width))
        for rows in (slice(2 * width), slice(2 * width, None)):
            # Glorot's bound of the joint layer on [x, h], gates and candidate each.
            bound = math.sqrt(6 / (inputs + width + len(self.input_GE[rows])))
            nn.init.uniform_(self.input_GE[rows], -bound, bound)
            nn.init.uniform_(self.recurrent_GH[rows], -bound, bound)
        gates = float(form == "compat")
        self.bias_G = nn.Parameter(torch.cat([torch.full((2 * width,), gates), torch.zeros(width)]))

    def forward(self, x_LBE: torch.Tensor, attention_LB: torch.Tensor,
                mask_LB: torch.Tensor | None = None) -> torch.Tensor:
        return self.recurrence(x_LBE, self.input_GE, self.bias_G, self.recurrent_GH, None, self.form,
                               attention_LB=attention_LB, mask_LB=mask_LB, every_state=False)
