"""A log with labels through KuaiRand's states, on one core: events per second of `Replay.rows`, without the model.

The log is that of the shipped sample from the first test moment on; the states are those of kuairand/prepare (counts
stand still, the user's moments go on), of the same with counts renewed nightly, and of kuairand/prepare_history, whose
counts of 7 keys and histories of 50 events all go on. Target: 50,000 events/s.

    python benchmarks/replay.py --save
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow as pa
from measure import arguments, finish, measure
from pyarrow import parquet

from clickwise.encoding import Encoding
from clickwise.encoding.replay import Replay
from clickwise.files import shipped
from clickwise.prepare import run
from clickwise.recipe import load

CASES = {"prepare": ("kuairand/prepare", []), "prepare, earlier_days": (
    "kuairand/prepare", ["dataset.count_until=earlier_days"]), "prepare_history": ("kuairand/prepare_history", [])}
TARGET = 50_000


def log_of(encoding: Encoding) -> pa.Table:
    """What the states of an encoding do not hold yet."""
    begins = max(state.until for state in encoding.tables.values() if state.goes_on and state.at == "time_ms")
    (path,) = shipped("data/kuairand_pure").glob("log_standard_*")
    table = parquet.read_table(path)
    return table.filter(pa.array(table["time_ms"].to_numpy() >= begins))


def main() -> None:
    options = arguments(__doc__).parse_args()
    pa.set_cpu_count(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (recipe, settings) in CASES.items():
            out = run(load(recipe, [*settings, f"out={folder}/{name}"]), recipe)
            encoding = Encoding.load(Path(out) / "preparation")
            log, names = log_of(encoding), [name for name in encoding.columns if name != encoding.events.label]
            timing = measure(lambda encoding=encoding, names=names, log=log: Replay(encoding, names).rows(log),
                             repeats=options.repeats)
            per_s = sorted(len(log) / seconds for seconds in timing.cpu)
            rows.append({"case": name, "events": len(log), "columns": len(names), "events/s": len(log) / timing.cpu_s,
                         "from": per_s[0], "to": per_s[-1], "target": TARGET, "repeats": options.repeats})
    finish("replay", rows, options)


if __name__ == "__main__":
    main()
