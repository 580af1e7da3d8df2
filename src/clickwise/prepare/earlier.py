"""What was known before an impression: counts of earlier days, and the user's impressions so far. Ibis only.

Nothing of an impression's own day enters its counts, and nothing of its own moment its place in the day, so that a
training row sees what a server would have known.
"""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from clickwise.prepare.steps import whole


def daily_counts(table: ir.Table, keys: Sequence[str], day: str, label: str) -> ir.Table:
    """`keys`, `day`, impressions, clicks: one row per key and day on which it was shown; missing keys are left out."""
    known = table.filter([table[key].notnull() for key in keys])
    return known.group_by([*keys, day]).aggregate(
        impressions=known.count(), clicks=known.count(where=known[label] == 1))


def earlier_counts(daily: ir.Table, keys: Sequence[str], day: str, last_day: int | None = None) -> ir.Table:
    """The rows of `daily` with the sums over all days before `day`; days after `last_day` count for nothing."""
    counts = ("impressions", "clicks")
    if last_day is not None:
        daily = daily.mutate(**{name: (daily[day] <= last_day).ifelse(daily[name], 0) for name in counts})
    so_far = ibis.cumulative_window(group_by=list(keys), order_by=day)
    return daily.select(*keys, day, **{name: whole(daily[name].sum().over(so_far)) - daily[name] for name in counts})


def total_counts(daily: ir.Table, keys: Sequence[str], day: str, last_day: int | None = None) -> ir.Table:
    """`keys`, impressions, clicks over all days up to `last_day`: what a server starts from."""
    if last_day is not None:
        daily = daily.filter(daily[day] <= last_day)
    return daily.group_by(list(keys)).aggregate(
        **{name: whole(daily[name].sum()) for name in ("impressions", "clicks")})


def click_rate_logit(impressions: ir.NumericColumn, clicks: ir.NumericColumn, *, prior: float,
                     weight: float) -> ir.FloatingColumn:
    """The log odds of the click rate, drawn towards `prior` as by `weight` more impressions."""
    return ((clicks + weight * prior) / (impressions - clicks + weight * (1 - prior))).ln()


def moments_of_users(table: ir.Table, user: str, day: str, time: str) -> ir.Table:
    """user, day, time, `seconds_since_last`, `earlier_today`: one row per user and moment.

    The seconds since the user's impression before (missing for the first), and how many the user has had on this day;
    impressions of the same moment do not see each other. `time` is in ms.
    """
    moments = table.group_by([user, day, time]).aggregate(impressions=table.count())
    before = ibis.window(group_by=user, order_by=[time, day])
    today = ibis.cumulative_window(group_by=[user, day], order_by=time)
    last = moments[time].lag().over(before)
    return moments.select(user, day, time, seconds_since_last=(moments[time] - last) / 1000,
                          earlier_today=whole(moments.impressions.sum().over(today)) - moments.impressions)


def last_moments(table: ir.Table, user: str, day: str, time: str) -> ir.Table:
    """user, time of the last impression, its day and the impressions of that day."""
    days = table.group_by([user, day]).aggregate(impressions=table.count(), **{time: table[time].max()})
    place = ibis.row_number().over(ibis.window(group_by=user, order_by=[ibis.desc(days[time]), ibis.desc(days[day])]))
    days = days.mutate(place=place)
    return days.filter(days.place == 0).drop("place")
