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


def moments_of_users(table: ir.Table, user: str, day: str, time: str, last: int | None = None) -> ir.Table:
    """user, day, time, `seconds_since_last`, `earlier_today`: one row per user, day and moment.

    The seconds since the user's impression before (missing for the first), and how many the user has had on this day;
    impressions of the same moment do not see each other. `time` is in ms. With `last`, what came on days after it is
    not seen, and rows of those days see all before, also where clocks disagree with days and theirs is the earlier.
    """
    moments = table.group_by([user, day, time]).aggregate(impressions=table.count())
    before = ibis.range_window(group_by=user, order_by=time, preceding=(None, 1))
    today = ibis.cumulative_window(group_by=[user, day], order_by=time)
    last_seen, counted = moments[time].max().over(before), moments.impressions
    if last is not None:
        is_seen = moments[day] <= last
        counted = is_seen.ifelse(counted, 0)
        until = is_seen.ifelse(moments[time], ibis.null("int64")).max().over(ibis.window(group_by=user))
        last_seen = is_seen.ifelse(last_seen, until)
    return moments.select(user, day, time, seconds_since_last=(moments[time] - last_seen) / 1000,
                          earlier_today=sum_as_int64(counted.sum().over(today)) - counted)
