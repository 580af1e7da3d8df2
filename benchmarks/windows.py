"""Samples per second for which histories are cut from a log of events on one core, and what is drawn for them.

Books' shape: 59 events a user in the mean, windows of 100 events of two features (item int32, category int16), ids of
1.2 million items by a power law. CPU time counts all threads of the process; the process is bound to one core. Sampled
rows stand in random order, as a shuffled epoch reads them.
"""

from __future__ import annotations

import os

if hasattr(os, "sched_setaffinity"):  # before torch and numpy count the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
import torch
from measure import arguments, finish, measure_alternating

from clickwise.data.columns import Columns
from clickwise.data.events import EventLog, Histories, RowNumbers, Samples
from clickwise.data.loader import Loader
from clickwise.data.synthetic import power_law_ids
from clickwise.feature_spec import Feature, FeatureSpec

TARGET = 500_000  # samples/s
LENGTH, ITEMS, CATEGORIES, USERS = 100, 1_200_000, 2330, 60_000


def log_of_books(random: np.random.Generator) -> EventLog:
    offsets = np.concatenate([[0], np.cumsum(20 + random.exponential(39, USERS).astype(np.int64))])
    item = power_law_ids(random, int(offsets[-1]), ITEMS, 0.7).astype(np.int32) + 1
    return EventLog(offsets, {"item_history": item, "category_history": (item % CATEGORIES + 1).astype(np.int16)})


def spec_of(*channels: str) -> FeatureSpec:
    features, names = {"label": Feature("label", "bool")}, {"label": ("label",)}
    for channel, ending in (("target_item", ""), ("history", "_history"), ("negative_history", "_negatives")):
        if channel in channels:
            window = (LENGTH,) if ending else None
            features |= {f"item{ending}": Feature(f"item{ending}", "int32", ITEMS + 1, dimensions=window),
                         f"category{ending}": Feature(f"category{ending}", "int16", CATEGORIES + 1, dimensions=window)}
            names[channel] = (f"item{ending}", f"category{ending}")
    return FeatureSpec(features, {}, names)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1 << 18)
    parser.add_argument("--batch-size", type=int, default=8192)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    log = log_of_books(random)
    user = random.integers(0, USERS, options.rows).astype(np.int32)
    position = (random.random(options.rows) * log.counts()[user]).astype(np.int32)
    label = np.arange(options.rows) % 2 == 0

    def epoch(*channels: str, **histories):
        samples = Samples(log, user, position, RowNumbers(0, options.rows), histories=Histories(**histories))
        loader = Loader(Columns(options.rows, {"label": label}, events=samples), spec_of(*channels),
                        batch_size=options.batch_size, prefetch=0)

        def read():
            assert sum(len(batch) for batch in loader.epoch(0)) == options.rows
        return read

    cases = {"history": epoch("history", negatives="popularity")}
    for rule in ("compat", "popularity", "uniform"):
        cases[f"history, drawn targets ({rule})"] = epoch("history", "target_item", negatives=rule)
        for length in (10, LENGTH):
            cases[f"history, targets, negatives of {length} events ({rule})"] = epoch(
                "history", "target_item", "negative_history", negatives=rule, negative_length=length)
    timings = measure_alternating(cases, repeats=options.repeats)
    rows = [{"case": case, "k samples/s (cpu)": options.rows / timing.cpu_s / 1e3,
             "k samples/s (wall)": options.rows / timing.wall_s / 1e3,
             "times target": options.rows / timing.cpu_s / TARGET, **timing.columns()}
            for case, timing in timings.items()]
    finish("windows", rows, options, columns=[*list(rows[0])[:4], "cpu_min_s", "cpu_max_s"], rows=options.rows,
           batch_size=options.batch_size, events=len(log), target_samples_per_s=TARGET)


if __name__ == "__main__":
    main()
