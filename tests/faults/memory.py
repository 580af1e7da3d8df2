"""The peak memory of prepare, a process of its own, on what is large in some way."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from criteo_rows import random_lines

LIMIT = 600 * 10**6
# The process writes down its own peak: what `wait4` tells of a child counts the parent's memory before exec as well.
CODE = """
import atexit, pathlib, sys
from clickwise.cli import main
atexit.register(lambda: pathlib.Path("status").write_text(pathlib.Path("/proc/self/status").read_text()))
sys.argv[0] = "clickwise"
main()
"""


@dataclasses.dataclass(frozen=True)
class Peak:
    name: str
    bytes: int
    limit: int
    code: int
    said: str


def _criteo(folder: Path) -> list[str]:
    lines = random_lines(2000, 1, values=2000)
    dice = random.Random(0)
    with open(folder / "day_0", "w") as file:
        for _ in range(150):
            file.write("\n".join(dice.sample(lines, len(lines))) + "\n")
    return ["criteo/prepare", "dataset.train=[day_0]", "dataset.split=files"]


def _bomb(folder: Path) -> list[str]:
    """A gz of 1 MB that is a single line of 1 GB."""
    with gzip.open(folder / "day_0.gz", "wb", compresslevel=9) as file:
        for _ in range(1000):
            file.write(b"1" * 10**6)
    return ["criteo/prepare", "dataset.train=[day_0.gz]", "dataset.split=files"]


def _wide(folder: Path) -> list[str]:
    names = [f"c{index}" for index in range(2000)]
    with open(folder / "rows.csv", "w") as file:
        file.write(",".join(["click", *names]) + "\n")
        for row in range(600):
            file.write(",".join([str(row % 2), *(str((row * 7919 + index) % 97) for index in range(2000))]) + "\n")
    features = {"click": {"dtype": "int64"}, **{name: {"dtype": "int64", "cardinality": "auto"} for name in names}}
    (folder / "feature_spec.yaml").write_text(json.dumps({
        "feature_spec": features, "channel_spec": {"label": ["click"], "categorical": names}, "metadata": {},
        "source_spec": {"train": [{"type": "csv", "features": list(features), "files": ["rows.csv"],
                                   "header": True}]}}))
    return ["table/prepare", "dataset.spec=."]


LARGE: dict[str, Callable[[Path], list[str]]] = {"300,000 rows of Criteo": _criteo, "a line of 1 GB in a gz": _bomb,
                                                 "a table of 2,000 columns": _wide}


def peak(name: str, folder: Path) -> Peak:
    words = LARGE[name](folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "said", "w") as said:
        process = subprocess.run([sys.executable, "-c", CODE, "prepare", *words, "out=out", "engine.threads=2",
                                  f"engine.memory_limit={LIMIT}B"], cwd=folder, stdout=said, stderr=said,
                                 env=environment, check=False)
    said = (folder / "said").read_text()
    assert "Traceback" not in said, said
    kilobytes = re.search(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())[1]
    return Peak(name, int(kilobytes) * 1024, LIMIT, process.returncode, said[-300:])
