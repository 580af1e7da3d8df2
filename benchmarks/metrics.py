"""Time and value of the metrics on 10 M scored impressions, beside scikit-learn's on the same arrays.

    python benchmarks/metrics.py --save
    python benchmarks/metrics.py --rows 90000000 --repeats 1 --name metrics-90m --save    # a Criteo test day

Cases: 3 % of clicks, 0.2 % of clicks, and saturated scores (one logit in ten beyond ±30). All runs use one thread and
batches of 65,536 rows. `error` is |value − scikit-learn's value|; for `auc` the proven `bound` stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import sklearn.metrics
import torch
from measure import arguments, finish, measure

from clickwise.metrics import MetricSet, ReportMaterial, build_metrics

USUAL = ["auc", "log_loss", "normalized_entropy", "calibration"]
CASES = {"3 % clicks": (0.03, 0.0), "0.2 % clicks": (0.002, 0.0), "saturated": (0.03, 0.1)}


def impressions(rows: int, rate: float, saturated: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal logits around the base rate, labels drawn from them; a share of the logits then made 30 times larger."""
    generator = torch.Generator().manual_seed(0)
    logit_B = torch.randn(rows, generator=generator) + math.log(rate / (1 - rate))
    label_B = torch.rand(rows, generator=generator) < logit_B.sigmoid()
    logit_B[torch.rand(rows, generator=generator) < saturated] *= 30
    return logit_B, label_B


def passed(metrics, batch_size: int, *columns: torch.Tensor) -> dict[str, float]:
    metrics.reset()
    for batch in batches(batch_size, *columns):
        metrics.update(*batch)
    return metrics.compute()


def batches(batch_size: int, *columns: torch.Tensor):
    return zip(*(column.split(batch_size) for column in columns), strict=True)


def report_arrays(batch_size: int, logit_B: torch.Tensor, label_B: torch.Tensor,
                  features: dict[str, torch.Tensor]) -> dict:
    material = ReportMaterial({name: range(20) for name in features})
    for logit, label, *ids in batches(batch_size, logit_B, label_B, *features.values()):
        material.update(logit, label, dict(zip(features, ids, strict=True)))
    return material.arrays("test")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--batch-size", type=int, default=65_536)
    parser.add_argument("--name", default="metrics", help="of the result file")
    options = parser.parse_args()
    torch.set_num_threads(1)

    table = []

    def run(case: str, what: str, function: Callable[[], dict | float], result: str = "",
            exact: float | None = None) -> None:
        """Times `function` and notes its result (the named one of several) and how far it is from `exact`."""
        results = {}
        timing = measure(lambda: results.update(found=function()), repeats=options.repeats, warmup=1)
        found = results["found"] if isinstance(results["found"], dict) else {result: results["found"]}
        value = found.get(result, "")
        table.append({"case": case, "what": what, "rows/s": options.rows / timing.cpu_s, "value": value,
                      "error": "" if exact is None else abs(value - exact),
                      "bound": found.get("auc_error_bound", ""), **timing.columns()})

    for case, (rate, saturated) in CASES.items():
        logit_B, label_B = impressions(options.rows, rate, saturated)
        score_B, click_B = logit_B.numpy(), label_B.numpy()

        def ours(names: list[str], *columns: torch.Tensor, case: str = case, **expected) -> None:
            metrics = MetricSet(build_metrics(names))
            run(case, " + ".join(names), lambda: passed(metrics, options.batch_size, *columns), names[0], **expected)

        exact = sklearn.metrics.roc_auc_score(click_B, score_B)
        run(case, "scikit-learn: auc", partial(sklearn.metrics.roc_auc_score, click_B, score_B), "auc")
        ours(["auc"], logit_B, label_B, exact=exact)
        ours(["exact_auc"], logit_B, label_B, exact=exact)
        ours(USUAL, logit_B, label_B, exact=exact)
        if saturated:
            continue  # scikit-learn clips probabilities, so its log loss is another number
        probability_B = logit_B.double().sigmoid().numpy()
        loss = sklearn.metrics.log_loss(click_B, probability_B)
        run(case, "scikit-learn: log_loss", partial(sklearn.metrics.log_loss, click_B, probability_B), "log_loss")
        ours(["log_loss"], logit_B, label_B, exact=loss)

    generator = torch.Generator().manual_seed(1)
    display_B = torch.randint(0, options.rows // 50, (options.rows,), generator=generator)
    ours(["gauc"], logit_B, label_B, display_B)
    features = {f"feature_{i}": torch.randint(0, 50, (options.rows,), generator=generator, dtype=torch.int16)
                for i in range(6)}
    run(case, "report material, 6 features x 20 values",
        lambda: report_arrays(options.batch_size, logit_B, label_B, features))

    columns = ["case", "what", "rows/s", "value", "error", "bound", "cpu_s", "cpu_min_s", "cpu_max_s"]
    finish(options.name, table, options, columns=columns, impressions=options.rows, batch_size=options.batch_size,
           threads=1)


if __name__ == "__main__":
    main()
