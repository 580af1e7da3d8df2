"""Time of `clickwise quickstart` in an empty folder, to report.html. Target: under 3 minutes on two cores.

    python benchmarks/quickstart.py --save
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, finish, measure


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(repeats=3)
    options = parser.parse_args()

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "clickwise.cli", "quickstart", "--folder", folder], check=True,
                           capture_output=True)
            assert list(Path(folder).rglob("report.html"))

    timing = measure(run, repeats=options.repeats, warmup=0)
    rows = [{"command": "clickwise quickstart", **{k: v for k, v in timing.columns().items() if "cpu" not in k}}]
    finish("quickstart", rows, options, target_s=180)


if __name__ == "__main__":
    main()
