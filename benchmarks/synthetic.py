"""Rows per second of synthetic data: columns of the three Criteo variants and raw Criteo logs, on one core.

Claims: at least 2 M rows/s of columns (13 numericals, 26 ids, a planted label) and 300,000 rows/s of raw text.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from measure import arguments, finish, measure

from clickwise.data.synthetic import VARIANTS, synthesize, synthesize_raw_criteo


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"

        def columns(variant: str, threads: int) -> None:
            shutil.rmtree(out, ignore_errors=True)
            synthesize(variant, {"train": options.rows}, out, threads=threads)

        def raw(threads: int) -> None:
            shutil.rmtree(out, ignore_errors=True)
            synthesize_raw_criteo(out, options.rows // 4, threads=threads)

        cases = [(variant, options.rows, lambda variant=variant: columns(variant, 1)) for variant in VARIANTS]
        cases.append(("criteo_raw", options.rows // 4, lambda: raw(1)))
        for name, rows, work in cases:
            timing = measure(work, repeats=options.repeats)
            results.append({"case": name, "threads": 1, "rows": rows, "rows/s": rows / timing.wall_s,
                            "rows/cpu-s": rows / timing.cpu_s, **timing.columns()})
    finish("synthetic", results, options, target="columns 2e6 rows/s, raw 3e5 rows/s, one core")


if __name__ == "__main__":
    main()
