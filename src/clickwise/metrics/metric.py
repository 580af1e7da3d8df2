"""What a metric is: fed with logits and labels batch by batch, merged across processes, computed at the end.

Every metric gives the same result for any batch size, any order and any split over processes, up to the rounding of
float64 sums. Logits are compared in float32, the widest type a model emits; sums are float64 and counts int64.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator

import torch

from clickwise.errors import DataError
from clickwise.metrics.bins import FINEST, bin_of

# Rows per block on a CPU: the temporaries of a block (64 to 512 KiB each) stay in the L2 cache.
BLOCK = 1 << 16


class Scored:
    """Scored impressions, and the values that several metrics need, each computed once and only if asked for.

    logit_B    float32
    label_B    bool
    display_B  ids of displays: integers of any type, or None
    """

    def __init__(self, logit_B: torch.Tensor, label_B: torch.Tensor, display_B: torch.Tensor | None = None) -> None:
        self.logit_B, self.label_B, self.display_B = logit_B.float(), label_B != 0, display_B

    def __len__(self) -> int:
        return len(self.logit_B)

    @functools.cached_property
    def bin_B(self) -> torch.Tensor:
        """The bin of every logit among `bins.FINEST`, int64."""
        return bin_of(self.logit_B, FINEST)

    @functools.cached_property
    def probability_B(self) -> torch.Tensor:
        """The predicted probability of a click, float64."""
        return self.logit_B.double().sigmoid_()

    @functools.cached_property
    def loss_B(self) -> torch.Tensor:
        """−ln of the probability given to the label that came true (nats), float64; exact at any logit, ±inf too."""
        toward_label_B = torch.where(self.label_B, self.logit_B, -self.logit_B)
        return -torch.nn.functional.logsigmoid(toward_label_B.double())


def blocks(logit_B: torch.Tensor, *others: torch.Tensor | None) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """The tensors in blocks of rows that fit the cache of a CPU; whole on any other device."""
    rows = len(logit_B)
    size = BLOCK if logit_B.device.type == "cpu" else max(rows, 1)
    for start in range(0, rows, size):
        yield tuple(None if tensor is None else tensor[start : start + size] for tensor in (logit_B, *others))


def column(name: str, tensor: torch.Tensor, rows: int | None = None) -> torch.Tensor:
    """`tensor` without gradient as [B]; [B, 1] is accepted. Raises DataError for other shapes and lengths."""
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.dim() != 1 or (rows is not None and len(tensor) != rows):
        expected = "one value per row" + ("" if rows is None else f", {rows:,} rows")
        raise DataError(f"metrics: {name}", found=f"shape {list(tensor.shape)}", expected=expected)
    return tensor.detach()


class Flaws:
    """Whether NaN logits, or labels other than 0 and 1, were seen.

    Both are a DataError: at once on a CPU; on a GPU only when somebody asks (`raise_if_any`), because looking at once
    would make the host wait for the device in every batch.
    """

    def __init__(self) -> None:
        self._seen: torch.Tensor | None = None  # [a NaN logit, an odd label]

    def note(self, logit_B: torch.Tensor, label_B: torch.Tensor) -> None:
        nan_logit = logit_B.isnan().any()
        odd_label = torch.zeros_like(nan_logit)
        if label_B.dtype != torch.bool:
            odd_label = (label_B.ne(0) & label_B.ne(1)).any()
        seen = torch.stack([nan_logit, odd_label])
        self._seen = seen if self._seen is None else seen | self._seen.to(seen.device)
        if seen.device.type == "cpu":
            self.raise_if_any()

    def raise_if_any(self) -> None:
        nan_logit, odd_label = (False, False) if self._seen is None else self._seen.tolist()
        if nan_logit:
            raise DataError("metrics: logits", found="NaN", expected="numbers (±inf is one)",
                            do="look for a model that diverged, or NaN among the numerical features")
        if odd_label:
            raise DataError("metrics: labels", found="a value other than 0 and 1", expected="0 or 1 per impression")


class Metric(abc.ABC):
    """`update` any number of times, `merge` with others of the same kind, then `compute`.

    NaN logits, and labels other than 0 and 1, are a DataError: in `update` on a CPU; on a GPU at the latest in
    `compute`, `merge` and `state_dict` (`Flaws`).
    """

    needs_display = False  # whether `update` must be given the ids of displays
    ideal = 1.0  # the best value; the nearer, the better

    def __init__(self) -> None:
        self.flaws = Flaws()
        self.reset()

    def goodness(self, value: float) -> float:
        """A number that is greater for a better `value` of this metric."""
        return -abs(value - self.ideal)

    def update(self, logit_B: torch.Tensor, label_B: torch.Tensor, display_B: torch.Tensor | None = None) -> None:
        """Adds B impressions: logits of any float type, labels 0 or 1 of any type, displays of any integer type."""
        logit_B = column("logits", logit_B)
        label_B = column("labels", label_B, len(logit_B))
        display_B = None if display_B is None else column("displays", display_B, len(logit_B))
        for logit_block, label_block, display_block in blocks(logit_B, label_B, display_B):
            self.flaws.note(logit_block, label_block)
            self.add(Scored(logit_block, label_block, display_block))

    def compute(self) -> dict[str, float]:
        """The results by name; NaN where the data leave a metric undefined (no rows, one class only)."""
        self.flaws.raise_if_any()
        return self.result()

    @abc.abstractmethod
    def add(self, scored: Scored) -> None:
        """Takes in one block of impressions that was checked."""

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """What `compute` returns."""

    @abc.abstractmethod
    def merge(self, other) -> None:
        """Takes in all that `other`, a metric of the same kind, has seen; `other` stays as it is."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forgets everything seen."""

    @abc.abstractmethod
    def state_dict(self) -> dict: ...

    @abc.abstractmethod
    def load_state_dict(self, state: dict) -> None: ...


class Sums(Metric):
    """A metric whose memory is bounded: named tensors, all zero at first, that add up.

    A subclass says which (`zeros`), how impressions add to them (`add`) and what comes out (`result`).
    """

    @abc.abstractmethod
    def zeros(self) -> dict[str, torch.Tensor]: ...

    def reset(self) -> None:
        self.flaws = Flaws()
        self.sums = self.zeros()

    def on(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The sums, moved to `device` if they are elsewhere."""
        if next(iter(self.sums.values())).device != device:
            self.sums = {name: tensor.to(device) for name, tensor in self.sums.items()}
        return self.sums

    def merge(self, other: Sums) -> None:
        self.flaws.raise_if_any()
        other.flaws.raise_if_any()
        for name, tensor in self.sums.items():
            tensor += other.sums[name].to(tensor.device)

    def state_dict(self) -> dict:
        self.flaws.raise_if_any()
        return {name: tensor.cpu().clone() for name, tensor in self.sums.items()}

    def load_state_dict(self, state: dict) -> None:
        self.sums = {name: state[name].clone() for name in self.zeros()}


class Kept(Metric):
    """A metric that keeps every row, so its memory grows: `columns` are lists of tensors, one per block."""

    names: tuple[str, ...] = ()

    def reset(self) -> None:
        self.flaws = Flaws()
        self.columns: dict[str, list[torch.Tensor]] = {name: [] for name in self.names}

    def keep(self, **columns_B: torch.Tensor) -> None:
        for name in self.names:
            self.columns[name].append(columns_B[name].clone())

    def kept(self, name: str) -> torch.Tensor:
        """The whole column on the CPU."""
        parts = [part.cpu() for part in self.columns[name]]
        self.columns[name] = [torch.cat(parts)] if parts else []
        return self.columns[name][0] if parts else torch.empty(0)

    def merge(self, other: Kept) -> None:
        self.flaws.raise_if_any()
        other.flaws.raise_if_any()
        for name in self.names:
            self.columns[name].extend(other.columns[name])

    def state_dict(self) -> dict:
        self.flaws.raise_if_any()
        return {name: self.kept(name) for name in self.names}

    def load_state_dict(self, state: dict) -> None:
        self.columns = {name: [state[name]] if len(state[name]) else [] for name in self.names}
