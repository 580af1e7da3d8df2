"""Time and memory of the ranking metrics on as many rows as Outbrain's validation set has: 27 M, 5.3 M displays.

    python benchmarks/ranking_metrics.py --save

One thread, batches of 65,536 rows that cut displays anywhere; one click per display, and one logit in ten rounded, so
that some tie. `in file order`: the rows of a display follow one another and the ids ascend. `displays shuffled`: they
follow one another, the ids come in any order. `rows shuffled`: every row anywhere. Each case runs in a process of its
own; `MiB` is how far its resident memory rose at most, above the columns it was given and what torch itself takes.
"""

from __future__ import annotations

import multiprocessing
import resource

import numpy as np
import torch
from measure import Timing, arguments, finish, measure

from clickwise.memory import peak_bytes
from clickwise.metrics import MetricSet, build_metrics

ORDERS = ("in file order", "displays shuffled", "rows shuffled")
SETS = (("map_at_12",), ("gauc",), ("map_at_12", "mrr", "ndcg_at_5", "hit_rate_at_1", "gauc"))


def impressions(rows: int, order: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels and display ids; displays of 2 to 12 items, 5.1 on average, whose click is likely to be high."""
    rng = np.random.default_rng(0)
    items_G = np.clip(rng.poisson(3.1, rows) + 2, 2, 12)
    items_G = items_G[: np.cumsum(items_G).searchsorted(rows) + 1]
    display_B = np.repeat(np.arange(len(items_G)), items_G)[:rows]
    logit_B = rng.standard_normal(rows, dtype=np.float32)
    logit_B[rng.random(rows, dtype=np.float32) < 0.1] = 0
    utility_B = logit_B + rng.gumbel(size=rows).astype(np.float32)
    first_G = np.flatnonzero(np.diff(display_B, prepend=-1))
    label_B = utility_B == np.repeat(np.maximum.reduceat(utility_B, first_G), np.diff(first_G, append=rows))
    if order == "displays shuffled":
        display_B = rng.permutation(display_B[-1] + 1)[display_B]
    elif order == "rows shuffled":
        shuffled = rng.permutation(rows)
        logit_B, label_B, display_B = logit_B[shuffled], label_B[shuffled], display_B[shuffled]
    return torch.from_numpy(logit_B), torch.from_numpy(label_B), torch.from_numpy(display_B)



def resident_mib() -> float:
    with open("/proc/self/statm", encoding="ascii") as counts:
        return int(counts.read().split()[1]) * resource.getpagesize() / 2**20


def restart_peak() -> None:
    """Makes the greatest resident memory of this process the present one (Linux)."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as settings:
        settings.write("5")


def passed(names: tuple[str, ...], batch_size: int, *columns: torch.Tensor) -> dict[str, float]:
    metrics = MetricSet(build_metrics(names))
    for batch in zip(*(column.split(batch_size) for column in columns), strict=True):
        metrics.update(*batch)
    return metrics.compute()


def case(order: str, names: tuple[str, ...], rows: int, batch_size: int, repeats: int) -> tuple[dict, Timing, float]:
    """Results, timing and rise of memory of one case."""
    torch.set_num_threads(1)
    columns = impressions(rows, order)
    passed(names, batch_size, *(column[:batch_size] for column in columns))
    restart_peak()
    before, results = resident_mib(), {}
    timing = measure(lambda: results.update(passed(names, batch_size, *columns)), repeats=1, warmup=0)
    rise = peak_bytes() / 2**20 - before
    more = measure(lambda: passed(names, batch_size, *columns), repeats=repeats - 1, warmup=0)
    return results, Timing(timing.wall + more.wall, timing.cpu + more.cpu), rise


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=27_000_000)
    parser.add_argument("--batch-size", type=int, default=65_536)
    options = parser.parse_args()

    table = []
    for order in ORDERS:
        for names in SETS:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                results, timing, rise = process.apply(
                    case, (order, names, options.rows, options.batch_size, options.repeats))
            table.append({"order": order, "metrics": " + ".join(names), "M rows/s": options.rows / timing.cpu_s / 1e6,
                          "MiB": rise, "value": results[names[0]], "results": results, **timing.columns()})
    finish("ranking-metrics", table, options,
           columns=["order", "metrics", "M rows/s", "MiB", "value", "cpu_s", "cpu_min_s", "cpu_max_s"],
           impressions=options.rows, batch_size=options.batch_size, threads=1)


if __name__ == "__main__":
    main()
