"""What a server counts: requests, how long they took, batches, missing and unseen values, scores; in memory that all
workers share, so that one of them can tell the sums.

Every worker writes into a row of its own; a worker that replaces another goes on where that one stopped.
"""

from __future__ import annotations

import bisect
import dataclasses
import mmap
from collections.abc import Sequence

import numpy as np

from clickwise.serve.shared_memory import COUNTED

ROUTES = ("infer", "rank", "events", "users", "models", "metrics", "health", "other")
STATUSES = (200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 431, 500, 503, 504)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
SCORES = 20  # bins of the histogram of scores
FEW = 8  # rows
TIMED = ROUTES[:4]
_REQUESTS = len(ROUTES) * len(STATUSES)
_TIMES = len(TIMED) * (len(SECONDS) + 2)  # of each route the bins, those beyond them, and the sum
_BATCHES = len(ROWS) + 2
_WAITING = _REQUESTS + _TIMES + _BATCHES
_FIXED = _WAITING + 1
_FOR_MODELS = COUNTED - _FIXED
_STATUS_AT = {status: index for index, status in enumerate(STATUSES)}
_ROUTE_AT = {route: index for index, route in enumerate(ROUTES)}
_TIMED_AT = {route: index for index, route in enumerate(TIMED)}


@dataclasses.dataclass(frozen=True)
class Counted:
    """Where a model is counted: its name, its raw columns, and its first number; None where there is no room."""

    name: str
    columns: tuple[str, ...]
    at: int | None

    @property
    def size(self) -> int:
        return size_of(self.columns)


def size_of(columns: Sequence[str]) -> int:
    """How many numbers a model with these raw columns takes: rows, scores, their sum, missing, unseen."""
    return 2 + SCORES + 2 * len(columns)


def room_for(columns: Sequence[str], taken: int) -> int | None:
    """Where a further model is counted, behind `taken` numbers; None where there is no room."""
    return taken if taken + size_of(columns) <= _FOR_MODELS else None


class ModelCounts:
    """The numbers of one model: views of the memory of this worker."""

    def __init__(self, numbers: np.ndarray, columns: int) -> None:
        self.numbers = numbers
        self.scores, self.missing, self.unseen = (numbers[2:2 + SCORES], numbers[2 + SCORES:2 + SCORES + columns],
                                                  numbers[2 + SCORES + columns:])

    def scored(self, found: np.ndarray) -> None:
        """Counts the probabilities of rows."""
        self.numbers[0] += len(found)
        if len(found) <= FEW:  # arrays cost more than what they count
            for score in found.tolist():
                self.numbers[1] += score
                self.scores[min(int(score * SCORES), SCORES - 1)] += 1
            return
        self.numbers[1] += float(found.sum(dtype=np.float64))
        bins = np.minimum((found * SCORES).astype(np.int64), SCORES - 1)
        self.scores += np.bincount(bins, minlength=SCORES)


class Measures:
    """What the worker `worker` counts in `shared`, which all `workers` have."""

    def __init__(self, shared: mmap.mmap, workers: int, worker: int) -> None:
        self._all = np.frombuffer(shared, np.float64).reshape(workers, COUNTED)
        self._mine = self._all[worker]
        self._mine[_WAITING] = 0

    def request(self, route: str, status: int, seconds: float) -> None:
        mine = self._mine
        mine[_ROUTE_AT[route] * len(STATUSES) + _STATUS_AT.get(status, _STATUS_AT[500])] += 1
        if route in _TIMED_AT:
            first = _REQUESTS + _TIMED_AT[route] * (len(SECONDS) + 2)
            mine[first + bisect.bisect_left(SECONDS, seconds)] += 1
            mine[first + len(SECONDS) + 1] += seconds

    def batch(self, rows: int) -> None:
        first = _REQUESTS + _TIMES
        self._mine[first + bisect.bisect_left(ROWS, rows)] += 1
        self._mine[first + len(ROWS) + 1] += rows

    def waiting(self, requests: int) -> None:
        self._mine[_WAITING] = requests

    def of_model(self, counted: Counted) -> ModelCounts:
        """Where rows of a model are counted; if there is no room, an array that nobody reads."""
        numbers = np.zeros(counted.size) if counted.at is None else \
            self._mine[_FIXED + counted.at:_FIXED + counted.at + counted.size]
        return ModelCounts(numbers, len(counted.columns))

    def text(self, models: Sequence[Counted], ready: Sequence[tuple[str, str]]) -> str:
        """All workers' numbers, as Prometheus reads them; `ready` are names and versions that are served."""
        sums = self._all.sum(0)
        lines = ["# HELP clickwise_requests_total Requests that were answered.",
                 "# TYPE clickwise_requests_total counter"]
        for route in ROUTES:
            for status in STATUSES:
                count = sums[_ROUTE_AT[route] * len(STATUSES) + _STATUS_AT[status]]
                if count or (route == "infer" and status == 200):
                    lines.append(f'clickwise_requests_total{{route="{route}",status="{status}"}} {count:.0f}')
        lines += ["# HELP clickwise_request_seconds From the beginning of a request to its answer.",
                  "# TYPE clickwise_request_seconds histogram"]
        for index, route in enumerate(TIMED):
            first = _REQUESTS + index * (len(SECONDS) + 2)
            lines += _histogram("clickwise_request_seconds", f'route="{route}"', SECONDS,
                                sums[first:first + len(SECONDS) + 2])
        lines += ["# HELP clickwise_batch_rows Rows that were scored together.",
                  "# TYPE clickwise_batch_rows histogram",
                  *_histogram("clickwise_batch_rows", "", ROWS, sums[_REQUESTS + _TIMES:_WAITING]),
                  "# HELP clickwise_queue_requests Requests that wait to be scored.",
                  "# TYPE clickwise_queue_requests gauge", f"clickwise_queue_requests {sums[_WAITING]:.0f}",
                  "# HELP clickwise_workers Worker processes.", "# TYPE clickwise_workers gauge",
                  f"clickwise_workers {len(self._all)}",
                  "# HELP clickwise_model_ready Versions that are served.", "# TYPE clickwise_model_ready gauge"]
        lines += [f'clickwise_model_ready{{model="{_escaped(name)}",version="{_escaped(version)}"}} 1'
                  for name, version in ready]
        return "\n".join([*lines, *_of_models(models, sums[_FIXED:])]) + "\n"


def _of_models(models: Sequence[Counted], sums: np.ndarray) -> list[str]:
    known = [(each, ModelCounts(sums[each.at:each.at + each.size], len(each.columns))) for each in models
             if each.at is not None]
    lines = ["# HELP clickwise_rows_total Rows that were scored.", "# TYPE clickwise_rows_total counter"]
    lines += [f'clickwise_rows_total{{model="{_escaped(each.name)}"}} {counts.numbers[0]:.0f}'
              for each, counts in known]
    lines += ["# HELP clickwise_score Probabilities.", "# TYPE clickwise_score histogram"]
    edges = [(index + 1) / SCORES for index in range(SCORES)]
    for each, counts in known:
        lines += _histogram("clickwise_score", f'model="{_escaped(each.name)}"', edges,
                            np.array([*counts.scores, 0, counts.numbers[1]]))
    for kind, what in (("missing", "Rows in which a raw column had no value."),
                       ("unseen", "Rows in which the value of a raw column was none of the vocabulary.")):
        lines += [f"# HELP clickwise_{kind}_values_total {what}", f"# TYPE clickwise_{kind}_values_total counter"]
        for each, counts in known:
            lines += [f'clickwise_{kind}_values_total{{model="{_escaped(each.name)}",column="{_escaped(column)}"}} '
                      f"{count:.0f}" for column, count in zip(each.columns, getattr(counts, kind), strict=True)]
    return lines


def _histogram(name: str, labels: str, bounds: Sequence[float], found: np.ndarray) -> list[str]:
    """`found`: how many lie below each of the bounds and above the one before, beyond them, and their sum."""
    inside = f"{labels}," if labels else ""
    whole = f"{{{labels}}}" if labels else ""
    sums = np.cumsum(found[:-1])
    return [*(f'{name}_bucket{{{inside}le="{bound:g}"}} {count:.0f}' for bound, count in
              zip(bounds, sums, strict=False)), f'{name}_bucket{{{inside}le="+Inf"}} {sums[-1]:.0f}',
            f"{name}_sum{whole} {found[-1]:.6g}", f"{name}_count{whole} {sums[-1]:.0f}"]


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
