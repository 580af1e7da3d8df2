"""How good the predictions were that training itself made for its latest samples, each before it was learned from."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from clickwise import processes
from clickwise.errors import RecipeError
from clickwise.metrics import MetricSet, build_metrics
from clickwise.train.evaluate import of_all_processes

METRICS = ("auc", "log_loss")


class LatestPredictions:
    """Those of whole batches, the fewest of the latest that hold at least `samples`; of several processes each keeps
    its part of them. `add` is what a model tells its predictions, `end_batch` follows.

    Nothing waits for a GPU until `measure`.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.samples, self.device = samples, device
        self._told: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._batches: deque[tuple[torch.Tensor, torch.Tensor, int]] = deque()
        self._held = 0  # samples of these, over all processes

    def add(self, logit_B: torch.Tensor, label_B: torch.Tensor) -> None:
        """Takes copies: a loader uses the memory of its batches again."""
        self._told.append((logit_B.detach().float(), label_B != 0))

    def end_batch(self, samples: int) -> None:
        """The batch had so many samples, over all processes; RecipeError where none of its predictions was told."""
        if not self._told:
            raise RecipeError("train.measure_latest", found="a model that tells no predictions in training",
                              expected="one whose `losses` calls self.click_loss(logit_B, label_B)",
                              do="see docs/add_a_model.md, or leave train.measure_latest out")
        logit_B, label_B = (torch.cat(parts) for parts in zip(*self._told, strict=True))
        self._told = []
        self._batches.append((logit_B, label_B, samples))
        self._held += samples
        while self._held - self._batches[0][2] >= self.samples:
            self._held -= self._batches.popleft()[2]

    def measure(self) -> dict[str, float]:
        """`train_auc` and `train_log_loss` of the samples of all processes, in each of them."""
        metrics = MetricSet(build_metrics(METRICS))
        if self._batches:
            metrics.update(*self._joined())
        found = of_all_processes(metrics)
        return {f"train_{name}": found[name] for name in METRICS}

    def _joined(self) -> tuple[torch.Tensor, torch.Tensor]:
        logits, labels, _ = zip(*self._batches, strict=True)
        return torch.cat(logits), torch.cat(labels)

    def state_dict(self) -> list[dict[str, Any]]:
        """What all processes keep, in the first; in the others nothing."""
        if not self._batches:
            return processes.at_first({})
        logit_B, label_B = self._joined()
        return processes.at_first({"logit": logit_B.cpu(), "label": label_B.cpu(),
                                   "rows": [len(logits) for logits, *_ in self._batches],
                                   "samples": [samples for *_, samples in self._batches]})

    def load_state_dict(self, parts: list[dict[str, Any]]) -> None:
        """Takes what this process kept, or where they were others in number the first process all."""
        if len(parts) != processes.count():
            parts = [_together(parts)] + [_nothing_of(parts[0])] * (processes.count() - 1)
        mine = parts[processes.rank()]
        if mine:
            columns = (mine[name].clone().to(self.device).split(mine["rows"]) for name in ("logit", "label"))
            self._batches, self._held = deque(zip(*columns, mine["samples"], strict=True)), sum(mine["samples"])


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    if not parts[0]:
        return {}
    columns = {name: torch.cat([piece for batch in zip(*(part[name].split(part["rows"]) for part in parts), strict=True)
                                for piece in batch]) for name in ("logit", "label")}
    return {**columns, "rows": [sum(rows) for rows in zip(*(part["rows"] for part in parts), strict=True)],
            "samples": parts[0]["samples"]}


def _nothing_of(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "logit": part["logit"][:0], "label": part["label"][:0], "rows": [0] * len(part["rows"])} \
        if part else {}
