"""How long `clickwise --help` takes, as a whole process. Target: under 0.3 s.

    python benchmarks/startup.py --save
"""

import subprocess
import sys

from measure import arguments, finish, measure

COMMANDS = {"python -c pass": [sys.executable, "-c", "pass"],
            "clickwise --help": [sys.executable, "-m", "clickwise.cli", "--help"]}


def main() -> None:
    options = arguments(__doc__).parse_args()
    rows = []
    for name, command in COMMANDS.items():
        timing = measure(lambda command=command: subprocess.run(command, check=True, capture_output=True),
                         repeats=options.repeats)
        rows.append({"command": name, **{key: value for key, value in timing.columns().items() if "wall" in key}})
    finish("startup", rows, options, target_s=0.3)


if __name__ == "__main__":
    main()
