"""Rows per second that the loader delivers on one core, for every way of shuffling.

Criteo's shape: 13 float16 numericals, a bool label and 26 categorical columns (8 int8, 9 int16, 9 int32), 89 bytes a
row, read from memory-mapped files with a warm page cache. CPU time counts all threads of the process; the process is
bound to one core, so wall time is at least as long.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

if hasattr(os, "sched_setaffinity"):  # before torch and numpy count the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
import torch
from measure import arguments, finish, measure_alternating

from clickwise.data.check import check_columns
from clickwise.data.columns import read_columns
from clickwise.data.loader import Loader
from clickwise.feature_spec import Feature, FeatureSpec, narrowest_id_dtype, split_binary_chunks

CARDINALITIES = (  # of the Criteo variant with frequency limit 15
    7912889, 33823, 17139, 7339, 20046, 4, 7105, 1382, 63, 5554114, 582469, 245828, 11, 2209, 10667, 104, 4, 968, 15,
    8165896, 2675940, 7156453, 302516, 12022, 97, 35)
TARGET = 5e6  # rows/s


def write_dataset(folder: Path, rows: int) -> FeatureSpec:
    features = {"label": Feature("label", "bool")}
    features |= {f"num_{i}": Feature(f"num_{i}", "float16") for i in range(13)}
    for i, cardinality in enumerate(CARDINALITIES):
        features[f"cat_{i}"] = Feature(f"cat_{i}", narrowest_id_dtype(cardinality), cardinality)
    channels = {"numerical": tuple(f"num_{i}" for i in range(13)), "label": ("label",),
                "categorical": tuple(f"cat_{i}" for i in range(26))}
    spec = FeatureSpec(features, {"train": split_binary_chunks(features, channels, "train")}, channels, {}, folder)
    random = np.random.default_rng(0)
    (folder / "train").mkdir()
    for chunk in spec.mappings["train"]:
        feature = features[chunk.features[0]]
        if feature.cardinality:
            column = random.integers(0, feature.cardinality, rows, dtype=feature.dtype)
        else:
            column = random.random((rows, len(chunk.features)), dtype=np.float32)
            column = column < 0.25 if feature.dtype == "bool" else column.astype(feature.dtype)
        column.tofile(folder / chunk.files[0])
    spec.save(folder)
    return spec


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1 << 22)
    parser.add_argument("--batch-size", type=int, default=65536)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        spec = write_dataset(Path(name), options.rows)
        columns = read_columns(spec, "train")

        def epoch(**settings):
            loader = Loader(columns, spec, batch_size=options.batch_size, **settings)

            def read():
                assert sum(len(batch) for batch in loader.epoch(0)) == options.rows
            return read

        def check():
            (spec.folder / ".checked.json").unlink(missing_ok=True)
            check_columns(spec, "train")

        cases = {f"{shuffle}, prefetch {prefetch}": epoch(shuffle=shuffle, prefetch=prefetch)
                 for shuffle in ("none", "batches", "rows") for prefetch in (0, 2)}
        cases["rows, prefetch 0, window 262,144"] = epoch(shuffle="rows", prefetch=0, window_rows=1 << 18)
        cases["check_columns (a scan, once)"] = check
        timings = measure_alternating(cases, repeats=options.repeats)
    rows = [{"case": case, "M rows/s (cpu)": options.rows / timing.cpu_s / 1e6,
             "M rows/s (wall)": options.rows / timing.wall_s / 1e6, "GB/s (cpu)": 89e-9 * options.rows / timing.cpu_s,
             "times target": options.rows / timing.cpu_s / TARGET, **timing.columns()}
            for case, timing in timings.items()]
    finish("loader", rows, options, columns=[*list(rows[0])[:5], "wall_min_s", "wall_max_s"], rows=options.rows,
           batch_size=options.batch_size, target_rows_per_s=TARGET)


if __name__ == "__main__":
    main()
