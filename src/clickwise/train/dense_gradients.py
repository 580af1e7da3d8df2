"""The dense part of a model in several processes: every process has all of it, and gradients are summed.

One message holds them all. torch's DistributedDataParallel would send some while backward still computes others, but
arranges its messages anew after the first step: a run that was resumed would sum in another order, and with three
processes or more give other bits than one that never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clickwise import processes


class DenseGradients:
    """Of these parameters, float32 on one device."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = list(parameters)

    @torch.no_grad()
    def sum(self) -> None:
        """Makes every gradient the sum of those of all processes; one that no process has stays None."""
        if processes.count() == 1 or not self.parameters:
            return
        has = [parameter.grad is not None for parameter in self.parameters]
        flat = processes.sum_over_all(torch.cat([self.parameters[0].new_tensor(has), *(
            (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in self.parameters)]))
        has_P, *grads = flat.split([len(self.parameters), *(p.numel() for p in self.parameters)])
        if not all(has):  # only then it must be known here, for which a GPU is waited for
            has = has_P.tolist()
        for parameter, any_has, grad in zip(self.parameters, has, grads, strict=True):
            parameter.grad = grad.view_as(parameter) if any_has else None
