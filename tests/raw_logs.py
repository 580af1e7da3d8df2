"""Tiny raw logs for tests, written without any code of the package."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

CRITEO_INTEGERS, CRITEO_CATEGORIES = 13, 26


def criteo_line(label: object = 0, integers: dict[int, object] | None = None,
                categories: dict[int, str] | None = None) -> str:
    """One line of Criteo's log, without its newline: fields that are not given (from 1 on) are empty."""
    integers, categories = integers or {}, categories or {}
    return "\t".join([str(label), *(str(integers.get(index, "")) for index in range(1, CRITEO_INTEGERS + 1)),
                      *(categories.get(index, "") for index in range(1, CRITEO_CATEGORIES + 1))])


def criteo_lines(rows: int, seed: int = 0, *, values: int = 12, missing: float = 0.1) -> list[str]:
    """Lines with small vocabularies: `values` of them per category, frequent ones first, a share `missing` empty."""
    dice = random.Random(seed)
    words = [[f"{random.Random(f'{index}/{word}').getrandbits(32):08x}" for word in range(values)]
             for index in range(CRITEO_CATEGORIES)]
    lines = []
    for _ in range(rows):
        integers = {index: dice.choice([-3, -2, -1, 0, 0, 1, 2, 5, 40, 1000, 250_000])
                    for index in range(1, CRITEO_INTEGERS + 1) if dice.random() >= missing}
        categories = {index + 1: words[index][min(int(dice.expovariate(4 / values)), values - 1)]
                      for index in range(CRITEO_CATEGORIES) if dice.random() >= missing}
        lines.append(criteo_line(int(dice.random() < 0.3), integers, categories))
    return lines


def write_criteo_days(folder: Path, rows_of_day: list[int], seed: int = 0, *, compress: bool = False,
                      **options: float) -> list[Path]:
    """Writes day_0, day_1, … (or day_0.gz, …) with the given numbers of lines; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for day, rows in enumerate(rows_of_day):
        lines = criteo_lines(rows, seed * 1000 + day, **options)
        content = "".join(f"{line}\n" for line in lines).encode()
        paths.append(folder / (f"day_{day}.gz" if compress else f"day_{day}"))
        paths[-1].write_bytes(gzip.compress(content, mtime=0) if compress else content)
    return paths
