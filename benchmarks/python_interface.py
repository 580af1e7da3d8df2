"""What the Python interface costs beside the work itself: `fit` of 100,000 rows and 20 columns, `predict_proba` of one
row and of 100,000.

Eight numbers, eight texts with vocabularies of 50 … 50,000 values drawn by a power law, three integers with few values;
the label follows a planted logit. `fit` runs in this process once before, so that imports are not counted, then for one
epoch and as it stands: what it spends outside of training (`wall_s` of the run, evaluations included) is the same for
both. The parts of `predict_proba` are the conversion of the frame to Arrow, the encoding, and the model's scores.
Targets: 20 % outside of training; a row in 2 ms, 200,000 rows/s, on one core.

    taskset -c 0 python benchmarks/python_interface.py --save
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from measure import arguments, finish, measure

import clickwise as cw
from clickwise.run.facts import RunFacts
from clickwise.run.scores import scores
from clickwise.run.whole_model import model_columns
from clickwise.tables import as_table

ROWS = 100_000


def frame(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {f"number_{index}": rng.normal(0, 10**index / 100, ROWS) for index in range(8)}
    effects = 0.3 * columns["number_2"] + 0.0
    for index in range(8):
        ids = rng.zipf(1.3, ROWS) % (50 * 10 ** (index % 4))
        effects += np.random.default_rng(index).normal(0, 0.4, ids.max() + 1)[ids]
        columns[f"text_{index}"] = np.char.add("v", ids.astype(str))
    columns |= {f"few_{index}": rng.integers(0, 30, ROWS) for index in range(3)}
    columns["click"] = (rng.random(ROWS) < 1 / (1 + np.exp(1 - effects))).astype(int)
    return pd.DataFrame(columns)


def fitted(data: pd.DataFrame, case: str, **settings: object) -> tuple[cw.Model, dict[str, object]]:
    wall, cpu = time.perf_counter(), time.process_time()
    model = cw.fit(data, label="click", **settings)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    training = RunFacts.load(model.folder).wall_s
    return model, {"case": case, "wall_s": wall, "cpu_s": cpu, "training_s": training,
                   "outside_s": wall - training, "outside": (wall - training) / wall,
                   "auc": model.metrics["validation"]["auc"]}


def main() -> None:
    options = arguments(__doc__).parse_args()
    data = frame()
    fitted(data, "", settings={"train.epochs": 1})
    rows = [fitted(data, "fit, one epoch", settings={"train.epochs": 1})[1]]
    model, row = fitted(data, "fit")
    rows.append(row)
    table = as_table(data, only=model._encoder.needs)
    columns = model_columns(model._spec, model._encoder.columns(table).arrays, ROWS)
    for case, work, count in (
            ("predict_proba, a row", lambda: [model.predict_proba(data[:1]) for _ in range(100)], 100),
            ("predict_proba, 100,000 rows", lambda: model.predict_proba(data), ROWS),
            ("… to Arrow", lambda: as_table(data, only=model._encoder.needs), ROWS),
            ("… encoding", lambda: model._encoder.columns(table), ROWS),
            ("… scores", lambda: scores(model._session, model._spec, columns), ROWS)):
        timing = measure(work, repeats=options.repeats)
        rows.append({"case": case, **timing.columns(), "ms_a_row": 1000 * timing.cpu_s / count,
                     "rows_per_cpu_s": count / timing.cpu_s})
    finish("python_interface", rows, options, columns=["case", "wall_s", "cpu_s", "training_s", "outside_s", "outside",
                                                      "auc", "ms_a_row", "rows_per_cpu_s"],
           targets={"outside": 0.2, "ms_a_row": 2, "rows_per_cpu_s": 200_000})


if __name__ == "__main__":
    main()
