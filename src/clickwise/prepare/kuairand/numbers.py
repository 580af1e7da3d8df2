"""The numerical features of KuaiRand: attributes, counts and click rates of earlier days, the user's moments before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ibis.expr.types as ir

from clickwise.encoding.operations import DividedBy, LogitRate, LogPlusOne
from clickwise.files import write_json
from clickwise.prepare import earlier, steps
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.kuairand.log import FIRST_TAG, LABEL, USER_NUMBERS
from clickwise.prepare.scales import fit_scales
from clickwise.progress import Progress

COUNT_KEYS = {"user": ("user_id",), "video": ("video_id",), "author": ("author_id",),
              "user_tab": ("user_id", "tab"), "video_tab": ("video_id", "tab"),
              "user_tag": ("user_id", FIRST_TAG), "user_author": ("user_id", "author_id")}
MOMENTS = ("seconds_since_last", "earlier_today")
NUMERICAL = (*USER_NUMBERS, "duration", "aspect_ratio", *(f"{key}_impressions" for key in COUNT_KEYS),
             *(f"{key}_click_rate" for key in COUNT_KEYS), *MOMENTS)


def store_numbers(folder: PreparationFolder, features: Sequence[str], *, train: tuple[int, int], rate_weight: float,
                  when: str, last_counted: int | None, last_moment: int | None) -> dict[str, Any]:
    """Stores `numbers` (row and `features` before scaling), `counts_<key>` beside them; writes preparation/scales.json.
    What stands there: `scales`, and the `mean_click_rate` of the training rows.

    The scales and the mean click rate are those of the rows `train`, first … end−1. Counts are of impressions
    that come before by the column `when`, and not of days after `last_counted`; the user's moments not of days after
    `last_moment`.
    """
    engine, wanted = folder.engine, set(features)
    impressions = engine.numbered(engine.table("impressions"))
    first, end = train
    table, formulas = impressions, _attribute_formulas()
    with Progress("counting earlier impressions", total=len(COUNT_KEYS) + 1, unit="steps") as bar:
        fitted_on = impressions.filter((impressions["row"] >= first) & (impressions["row"] < end))
        prior = engine.row(fitted_on.aggregate(p=fitted_on[LABEL].mean()))["p"]
        prior = min(max(prior, 1e-6), 1 - 1e-6)  # the log odds of 0 or 1 do not exist
        for key, ids in COUNT_KEYS.items():
            if wanted & {f"{key}_impressions", f"{key}_click_rate"}:
                counts = engine.materialise(earlier.counts(impressions, ids, when, LABEL), f"counts_{key}")
                before = earlier.earlier_counts(counts, ids, when, last_counted)
                table = _joined(table, engine.materialise(before, f"earlier_{key}"), (*ids, when), key)
                formulas |= _count_formulas(key, prior, rate_weight)
            bar.advance(1, key)
        if wanted & set(MOMENTS):
            moments = ("user_id", "date", "time_ms")
            table = _joined(table, engine.materialise(earlier.moments_of_users(
                impressions, *moments, last_moment), "moments"), moments, "moment")
        numbers = engine.materialise(table.select("row", **{name: formulas[name](table) for name in features}),
                                     "numbers")
        bar.advance(1)
    fitted_on = numbers.filter((numbers["row"] >= first) & (numbers["row"] < end))
    scales = fit_scales(engine, fitted_on, features)
    fitted = {"mean_click_rate": prior, "scales": scales}
    write_json(folder.preparation / "scales.json", fitted)
    return fitted


def _joined(table: ir.Table, other: ir.Table, keys: Sequence[str], prefix: str) -> ir.Table:
    """`table` with the columns of `other`, called `<prefix>__<column>`; missing where `other` has no such row."""
    columns = {f"{prefix}__{name}": name for name in other.columns if name not in keys}
    return steps.look_up(table, other, {key: key for key in keys}, columns)


Formula = Callable[[ir.Table], ir.FloatingColumn]


def _attribute_formulas() -> dict[str, Formula]:
    formulas = {name: lambda table, name=name: LogPlusOne().bulk(table[name]) for name in USER_NUMBERS}
    formulas |= {name: lambda table, name=name: LogPlusOne().bulk(table[f"moment__{name}"]) for name in MOMENTS}
    return formulas | {
        "duration": lambda table: LogPlusOne().bulk(DividedBy(1000.0).bulk(table.duration_ms)),
        "aspect_ratio": lambda table: table.server_width / table.server_height.nullif(0),
    }


def _count_formulas(key: str, prior: float, weight: float) -> dict[str, Formula]:
    impressions, clicks = f"{key}__impressions", f"{key}__clicks"
    return {
        f"{key}_impressions": lambda table: LogPlusOne().bulk(table[impressions]),
        f"{key}_click_rate": lambda table: LogitRate(prior, weight).bulk(table[impressions], table[clicks]),
    }
