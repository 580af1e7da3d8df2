"""What was known before an impression: counts of earlier days or moments, and the user's impressions so far. Ibis only.

Nothing of an impression's own day (or moment) enters its counts, and nothing of its own moment its position in the day,
so that a training row sees what a server would have known.
"""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from clickwise.prepare.steps import sum_as_int64

COUNTED = ("impressions", "clicks")


def counts(table: ir.Table, keys: Sequence[str], when: str, label: str) -> ir.Table:
    """`keys`, `when`, impressions, clicks: one row per key and day (or moment, whichever the column `when` tells) at
    which it was shown; missing keys are left out."""
    known = table.filter([table[key].notnull() for key in keys])
    return known.group_by([*keys, when]).aggregate(
        impressions=known.count(), clicks=known.count(where=known[label] == 1))


def earlier_counts(found: ir.Table, keys: Sequence[str], when: str, last: int | None = None) -> ir.Table:
    """The rows of `counts` with the sums over all before `when`; what came after `last` counts for nothing."""
    if last is not None:
        found = found.mutate(**{name: (found[when] <= last).ifelse(found[name], 0) for name in COUNTED})
    so_far = ibis.cumulative_window(group_by=list(keys), order_by=when)
    return found.select(*keys, when, **{
        name: sum_as_int64(found[name].sum().over(so_far)) - found[name] for name in COUNTED})


def total_counts(found: ir.Table, keys: Sequence[str], when: str, last: int | None = None) -> ir.Table:
    """`keys`, impressions, clicks over all of `counts` up to `last`: what a server starts from."""
    if last is not None:
        found = found.filter(found[when] <= last)
    return found.group_by(list(keys)).aggregate(**{name: sum_as_int64(found[name].sum()) for name in COUNTED})


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
                          earlier_today=sum_as_int64(moments.impressions.sum().over(today)) - moments.impressions)


def last_moments(table: ir.Table, user: str, day: str, time: str) -> ir.Table:
    """user, time of the last impression, its day and the impressions of that day."""
    days = table.group_by([user, day]).aggregate(impressions=table.count(), **{time: table[time].max()})
    number = ibis.row_number().over(ibis.window(group_by=user, order_by=[ibis.desc(days[time]), ibis.desc(days[day])]))
    days = days.mutate(number=number)
    return days.filter(days.number == 0).drop("number")
