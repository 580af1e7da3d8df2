"""KuaiRand's preparation as data: what raw rows of the log go through, and the states that they are looked up in.

A state holds what was known before the test days; those that go on do so from there, with the events of a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from clickwise.encoding import Column, Encoding, RawColumn
from clickwise.encoding.document import STATES, Log
from clickwise.encoding.operations import (
    DividedBy,
    Joined,
    LogitRate,
    LogPlusOne,
    Operation,
    OrElse,
    Standardize,
    Vocabulary,
    Weekday,
    WholePart,
)
from clickwise.encoding.raw_types import Boolean, Float, Integer, RawType, Text
from clickwise.encoding.states import Counts, EventLog, LastMoment, Lookup, State
from clickwise.encoding.states.counts import LATE, WHEN
from clickwise.encoding.states.event_log import OUTCOME, TIME
from clickwise.encoding.states.keyed_table import write_keyed_table
from clickwise.encoding.states.state import FIRST
from clickwise.feature_spec import Feature
from clickwise.prepare import earlier
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.kuairand.config import KuaiRandConfig
from clickwise.prepare.kuairand.history import GAP
from clickwise.prepare.kuairand.log import (
    DISPLAY,
    FIRST_TAG,
    ITEM,
    LABEL,
    TAGS,
    USER_CATEGORICAL,
    USER_NUMBERS,
    VIDEO_CATEGORICAL,
    first_tag,
)
from clickwise.prepare.kuairand.numbers import COUNT_KEYS

NUMBER = Float(missing=("nan", "NaN"), strict=True)
RAW = {**{name: RawColumn(Integer()) for name in ("user_id", "video_id", "date", "hourmin", "time_ms", "tab")},
       "duration_ms": RawColumn(NUMBER), LABEL: RawColumn(Boolean())}
EVENTS = Log(label=LABEL, time="time_ms", same=("user_id", "video_id", "time_ms"),
             order=("time_ms", "date", "user_id", "video_id"))
USERS, VIDEOS, TODAY, LAST, HISTORY = "users", "videos", "today", "last", "history"
SECONDS, EARLIER_TODAY = "seconds_since_last", "earlier_today"


def store_encoding(folder: PreparationFolder, config: KuaiRandConfig, features: Mapping[str, Feature],
                   scales: Mapping[str, Mapping[str, float]], prior: float) -> Encoding:
    """The encoding of the columns `features`; its states, but for vocabularies, are now written."""
    states = _States(folder, config)
    columns = {name: _column(name, features[name], scales, prior, config) for name in features}
    columns |= _history_columns(config, features)
    wanted = {of for column in columns.values() for of in column.sources}
    keys = [key for key in COUNT_KEYS if f"{key}_impressions" in wanted]
    wanted |= {key for name in keys for key in COUNT_KEYS[name]}
    tables = states.attributes(USERS, "user_id", wanted) | states.attributes(VIDEOS, "video_id", wanted)
    for key in keys:
        tables |= states.counts(key)
    if SECONDS in wanted:
        tables |= states.last()
    if EARLIER_TODAY in wanted:
        tables |= states.today()
    if config.history is not None:
        tables |= states.history(features)
    return Encoding(RAW, columns, tables=tables, events=EVENTS)


def _column(name: str, feature: Feature, scales: Mapping[str, Mapping[str, float]], prior: float,
            config: KuaiRandConfig) -> Column:
    """The column of a feature that is none of the history."""
    of: str | tuple[str, ...] = name
    steps: tuple[Operation, ...] = ()
    if name in scales:
        steps = (LogPlusOne(),)
        if name == "duration":
            of, steps = "duration_ms", (DividedBy(1000.0), LogPlusOne())
        elif name == "aspect_ratio":
            steps = ()
        elif name.endswith("_click_rate"):
            key = name.removesuffix("_click_rate")
            of, steps = (f"{key}_impressions", f"{key}_clicks"), (LogitRate(prior, config.rate_weight),)
        steps += (Standardize(**scales[name]),)
    elif name == DISPLAY:
        of, steps = ("user_id", "date"), (Joined(100_000_000),)
    elif name == ITEM:
        of = "video_id"
    elif name != LABEL:
        ids = Vocabulary(name)
        of, steps = {"hour": ("hourmin", (WholePart(100), ids)), "day_of_week": ("date", (Weekday(), ids)),
                     TAGS: ("tag", (ids,)), "video": ("video_id", (ids,)), "tag": (FIRST_TAG, (OrElse(""), ids)),
                     "author": ("author_id", (OrElse(-1), ids))}.get(name, (name, (ids,)))
    return Column(of, steps, feature.dtype)


def _history_columns(config: KuaiRandConfig, features: Mapping[str, Feature]) -> dict[str, Column]:
    """Lists of events: what a model sees of each, and how long ago it was."""
    if config.history is None:
        return {}
    columns = {f"{name}_history": Column(f"{name}_history", (), features[name].dtype) for name in config.history.items}
    if "shown" in config.history.sources:
        columns[OUTCOME] = Column(OUTCOME, (), "int8")
    if config.history.time_gap:
        columns[GAP] = Column(GAP, (), "int64")
    return columns


class _States:
    """Writes states into preparation/states, each from tables that stand in the engine."""

    def __init__(self, folder: PreparationFolder, config: KuaiRandConfig) -> None:
        self.folder, self.config, self.engine = folder, config, folder.engine
        self.impressions = self.engine.table("impressions")
        is_test = self.impressions.date >= config.test_from
        found = self.engine.row(self.impressions.aggregate(first=self.impressions.time_ms.min(where=is_test)))
        self.first_test_ms = found["first"]

    def _write(self, name: str, table: pa.Table, keys: Sequence[str], further: Mapping[str, pa.Array] = {}) -> None:
        table = table.sort_by([(key, "ascending") for key in keys]).combine_chunks() if len(table) else table
        columns = {column: _whole(table[column]) for column in table.column_names}
        write_keyed_table(self.folder.preparation / STATES / name, {key: columns.pop(key) for key in keys},
                          {**columns, **further})

    def attributes(self, name: str, id_: str, wanted: set[str]) -> dict[str, State]:
        """Of users or videos, what is wanted of them."""
        types: dict[str, RawType | str] = {}
        raw = self.engine.table(f"raw_{name}")
        known = {column: raw[column] for column in raw.columns if column != id_}
        if name == USERS:
            names = (*USER_NUMBERS, *USER_CATEGORICAL)
        else:
            names = (*VIDEO_CATEGORICAL, "tag", FIRST_TAG, "aspect_ratio")
            if "tag" in known:
                known[FIRST_TAG] = first_tag(raw.tag)
            if "server_width" in known:
                known["aspect_ratio"] = raw.server_width / raw.server_height.nullif(0)
        types = {column: known[column].type() for column in names if column in wanted and column in known}
        if not types:
            return {}
        table = _fetched(self.engine, raw.select(id_, **{column: known[column] for column in types}))
        gives = {column: RawColumn(Text() if type_.is_string() else NUMBER if type_.is_floating() else Integer(),
                                   list="," if column == "tag" else None) for column, type_ in types.items()}
        self._write(name, table, [id_])
        return {name: Lookup((id_,), gives)}

    def counts(self, key: str) -> dict[str, State]:
        ids, config = COUNT_KEYS[key], self.config
        goes_on = config.count_until != "training"
        when, until = ("time_ms", self.first_test_ms) if config.count_until == "earlier_moments" else \
            ("date", config.test_from)
        totals = earlier.total_counts(self.engine.table(f"counts_{key}"), ids, when, until - 1)
        gives = {f"{key}_{name}": RawColumn(Integer()) for name in earlier.COUNTED}
        return self._counts(f"counts_{key}", ids, gives, totals, when if goes_on else None, until)

    def _counts(self, name: str, ids: Sequence[str], gives: Mapping[str, RawColumn], totals: ir.Table,
                at: str | None, until: int) -> dict[str, State]:
        """The state of `totals`: `ids` and counts, in the order of `gives`."""
        totals = totals.select(*ids, **{given: totals[count] for given, count in zip(
            gives, earlier.COUNTED, strict=False)})
        table = _fetched(self.engine, totals)
        late = {} if at is None else dict(zip((WHEN, *LATE), (
            pa.array(np.full(len(table), value, np.int64)) for value in (FIRST, 0, 0)), strict=True))
        self._write(name, table, ids, late)
        return {name: Counts(tuple(ids), gives, at, at is not None, None if at is None else until)}

    @property
    def _moments_go_on(self) -> bool:
        return self.config.moments_until == "impression"

    def _before(self) -> ir.Table:
        """The impressions that moments know of."""
        rows = self.impressions
        return rows.filter(rows.time_ms < self.first_test_ms if self._moments_go_on else
                           rows.date < self.config.test_from)

    def last(self) -> dict[str, State]:
        goes_on = self._moments_go_on
        rows = self._before()
        table = _fetched(self.engine, rows.group_by("user_id").aggregate(**{TIME: rows.time_ms.max()}))
        self._write(LAST, table, ["user_id"], {"before": pa.array(np.full(len(table), FIRST))} if goes_on else {})
        return {LAST: LastMoment(("user_id",), {SECONDS: RawColumn(Float())}, "time_ms", goes_on,
                                 self.first_test_ms if goes_on else None)}

    def today(self) -> dict[str, State]:
        """Impressions of a user on a day, of the days that may go on."""
        goes_on, rows = self._moments_go_on, self._before()
        days = self.impressions
        first = self.engine.row(days.aggregate(date=days.date.min(
            where=(days.time_ms >= self.first_test_ms) | (days.date >= self.config.test_from))))["date"]
        rows = rows.filter(rows.date >= first)
        totals = rows.group_by(["user_id", "date"]).aggregate(impressions=rows.count())
        return self._counts(TODAY, ("user_id", "date"), {EARLIER_TODAY: RawColumn(Integer())}, totals,
                            "time_ms" if goes_on else None, self.first_test_ms)

    def history(self, features: Mapping[str, Feature]) -> dict[str, State]:
        """The events of every user as they were written beside the columns, which are in the order of the log."""
        config, log = self.config.history, self.folder.dataset / HISTORY
        goes_on = self.config.count_until != "training"
        numbered = self.engine.numbered(self.engine.table("history_events"))
        table = _fetched(self.engine, numbered.select("row", "user_id", "time", "outcome")).sort_by("row")
        users, times = (table[name].to_numpy() for name in ("user_id", "time"))
        kept = times < self.first_test_ms if goes_on else np.ones(len(times), bool)
        columns = {TIME: times}
        features_of = {f"{name}_history": name for name in config.items}
        for name, item in features_of.items():
            columns[name] = np.fromfile(log / f"{name}.bin", features[item].dtype)
        if "shown" in config.sources:
            columns[OUTCOME], features_of[OUTCOME] = table["outcome"].to_numpy().astype(np.int8), OUTCOME
        users = users[kept]
        starts = np.flatnonzero(np.append(len(users) > 0, users[1:] != users[:-1])) if len(users) else np.zeros(0, int)
        offsets = pa.array(np.append(starts, len(users)).astype(np.int64))
        write_keyed_table(self.folder.preparation / STATES / HISTORY, {"user_id": pa.array(users[starts])}, {
            name: pa.LargeListArray.from_arrays(offsets, pa.array(column[kept])) for name, column in columns.items()})
        if config.time_gap:
            features_of[GAP] = TIME
        return {HISTORY: EventLog(("user_id",), dict.fromkeys(features_of, RawColumn(Integer())), "time_ms", goes_on,
                                  self.first_test_ms if goes_on else None, length=config.length, features=features_of,
                                  clicks_only="shown" not in config.sources)}


def _fetched(engine: Engine, expression: ir.Table) -> pa.Table:
    batches = list(engine.batches(expression))
    return pa.Table.from_batches(batches, None if batches else expression.schema().to_pyarrow())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found
