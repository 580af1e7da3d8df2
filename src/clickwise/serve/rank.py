"""Candidates in one context, best first: the context is encoded once, what depends on a candidate for each of them.

    {"context": {"user_id": 7, "tab": 1, …}, "candidates": [103, 105, …], "top": 10}

A candidate is an object of raw columns, or the value of the one column that the context lacks. A column of both is that
of the candidate. `history` is a list of events, the latest last, in place of what the states hold, or a user's key.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clickwise.encoding import Encoder
from clickwise.encoding.lists import Lists
from clickwise.errors import UsageError, nearest
from clickwise.serve.exported import Tensors
from clickwise.serve.history import given_histories, logs_of
from clickwise.serve.inputs import tensors
from clickwise.serve.served import Served
from clickwise.serve.states.live import LiveEncoder

MOST_CANDIDATES = 20_000
KEYS = ("context", "candidates", "history", "top", "model", "version")
_SCALARS = (str, int, float, bool, type(None))


class Ranking:
    """How candidates with certain columns are encoded: `fixed` columns depend on the context alone."""

    def __init__(self, encoder: Encoder, of_candidates: frozenset[str], logs: tuple[str, ...] = ()) -> None:
        """`logs`: the event logs that a request brings along."""
        columns = {name: _of(encoder, [name], logs) for name in encoder.names}
        varying = [name for name, alone in columns.items() if _depends(alone, of_candidates)]
        fixed = [name for name in columns if name not in varying]
        self.fixed = _of(encoder, fixed, logs) if fixed else None
        self.varying = _of(encoder, varying, logs) if varying else None

    def columns(self, served: Served, context: Mapping[str, Any], candidates: Mapping[str, list[Any]], rows: int,
                histories: Mapping[str, Any]) -> dict[str, np.ndarray | Lists]:
        """Encoded columns of all candidates. Raises DataError."""
        found: dict[str, np.ndarray | Lists] = {}
        if self.fixed is not None and histories:  # what is given is looked up for many rows alone
            given = {of: served.array(of, [context[of]]) for of in self.fixed.needs if of in context}
            encoded = _with(self.fixed, histories).columns(given, "context").arrays
            found |= {name: _repeated_list(column[0], rows) if isinstance(column, tuple) else np.repeat(column, rows)
                      for name, column in encoded.items()}
        elif self.fixed is not None:
            for name, value in self.fixed.row(context).items():
                found[name] = _repeated_list(value, rows) if isinstance(value, list) else np.full(rows, value)
        if self.varying is not None:
            given = {of: served.array(of, values) for of, values in candidates.items()}
            given |= {of: _repeated(served, of, context[of], rows) for of in self.varying.needs
                      if of in context and of not in given}
            found |= _with(self.varying, histories).columns(given, "candidates").arrays
        return found


def _of(encoder: Encoder, names: Sequence[str], logs: Sequence[str]) -> Encoder:
    """One for some of its columns, to which these event logs are given."""
    if isinstance(encoder, LiveEncoder):
        return encoder.for_columns(names, alone=True)
    return Encoder(encoder.encoding, names, {**encoder.going_on, **dict.fromkeys(logs)}, alone=True,
                   by_key=encoder.by_key)


def _with(encoder: Encoder, histories: Mapping[str, Any]) -> Encoder:
    if not histories:
        return encoder
    return encoder.with_given(histories) if isinstance(encoder, LiveEncoder) else encoder.with_states(histories)


def _depends(alone: Encoder, of_candidates: frozenset[str]) -> bool:
    """Whether a column differs between candidates; how many rows a display has is counted over all of them."""
    return alone.group is not None or not of_candidates.isdisjoint(alone.needs)


def _repeated(served: Served, of: str, value: Any, rows: int) -> pa.Array:
    return served.array(of, [value]).take(pa.array(np.zeros(rows, np.int64)))


def _repeated_list(ids: Sequence[int], rows: int) -> Lists:
    return np.tile(np.array(ids, np.int64), rows), np.arange(rows + 1, dtype=np.int64) * len(ids)


@functools.lru_cache(maxsize=64)
def ranking(encoder: Encoder, of_candidates: frozenset[str], logs: tuple[str, ...]) -> Ranking:
    """As `Ranking`, made once."""
    return Ranking(encoder, of_candidates, logs)


@dataclasses.dataclass(slots=True)
class Asked:
    """A request: the context, the candidates' columns, how many are asked for, and the history that it brings along."""

    context: dict[str, Any]
    columns: dict[str, list[Any]]
    rows: int
    top: int | None
    history: list[Any] | None


def read_rank(request: Mapping[str, Any], served: Served) -> Asked:
    """Raises UsageError for what is no request."""
    for key in request:
        if key not in KEYS:
            raise UsageError("the body", found=f"the key {key[:40]!r}", expected=", ".join(KEYS), do=nearest(key, KEYS))
    if served.encoder is None:
        raise UsageError("rank", found="a model without its encoding", expected="an export that takes raw rows")
    context, candidates, top = request.get("context", {}), request.get("candidates"), request.get("top")
    if type(context) is not dict or not all(_is_value(value) for value in context.values()):
        raise UsageError("context", found="something else", expected="an object of raw columns")
    if type(candidates) is not list or not 1 <= len(candidates) <= MOST_CANDIDATES:
        raise UsageError("candidates", found="no list" if type(candidates) is not list else f"{len(candidates):,}",
                         expected=f"a list of 1 … {MOST_CANDIDATES:,}")
    if top is not None and (type(top) is not int or top < 1):
        raise UsageError("top", found="something else", expected="a number from 1 on")
    history = request.get("history")
    if history is not None and type(history) is not list:
        context, history = _of_user(context, history, served), None
    elif history is not None and not all(map(_is_event, history)):
        raise UsageError("history", found="something else", expected="objects of raw columns, or keys")
    return Asked(context, _columns(candidates, context, served), len(candidates), top, history)


def _of_user(context: dict[str, Any], user: Any, served: Served) -> dict[str, Any]:
    """The context with the user whose history is meant."""
    keys = [of for log in logs_of(served).values() for of in log.by]
    if len(set(keys)) != 1 or not _is_value(user):
        raise UsageError("history", found="a user" if _is_value(user) else "something else", expected="a list of events"
                         if keys else "none: the model reads no history")
    if context.get(keys[0], user) != user:
        raise UsageError("history", found=f"another user than {keys[0]} of the context", expected="the same")
    return {**context, keys[0]: user}


def _is_event(event: Any) -> bool:
    return all(map(_is_value, event.values())) if type(event) is dict else _is_value(event)


def _is_value(value: Any) -> bool:
    return isinstance(value, _SCALARS) or (type(value) is list and all(isinstance(part, _SCALARS) for part in value))


def _columns(candidates: Sequence[Any], context: Mapping[str, Any], served: Served) -> dict[str, list[Any]]:
    kinds = set(map(type, candidates))
    if kinds == {dict}:
        names = [name for name in candidates[0] if name in served.raw]
        for index, candidate in enumerate(candidates):
            if set(names) != served.raw.keys() & candidate.keys():
                raise UsageError(f"candidate {index}", found="other columns than of the first",
                                 expected=", ".join(names))
        columns = {name: [candidate[name] for candidate in candidates] for name in names}
    elif dict in kinds or list in kinds:
        raise UsageError("candidates", found="values of several kinds", expected="all keys, or all objects")
    else:
        lacking = [name for name in served.raw if name not in (*context, *served.encoder.optional)]
        if len(lacking) != 1:
            raise UsageError("candidates", found="bare keys, and a context without " + (", ".join(lacking) or "a gap"),
                             expected="a context that lacks one column, of which they are the values",
                             do="give the others in the context, or objects of columns as candidates")
        columns = {lacking[0]: list(candidates)}
    for name, values in columns.items():
        if not all(map(_is_value, values)):
            raise UsageError("candidates", found=f"an object as {name}", expected="a value")
    return columns


def encode(asked: Asked, served: Served) -> Tensors:
    """The tensors of all candidates. Raises DataError."""
    histories = {} if asked.history is None else given_histories(served, asked.history)
    plan = ranking(served.encoder, frozenset(asked.columns), tuple(histories))
    columns = plan.columns(served, asked.context, asked.columns, asked.rows, histories)
    return tensors(served.signature.inputs, columns, asked.rows)


def ranked(asked: Asked, scores: np.ndarray) -> list[dict[str, Any]]:
    """The best first, equal ones in the order of the request; the key of candidates of one column."""
    order = np.argsort(-scores, kind="stable")[:asked.top].tolist()
    keys = next(iter(asked.columns.values())) if len(asked.columns) == 1 else [None] * len(scores)
    return [{"index": index, "key": keys[index], "score": scores[index]} for index in order]
