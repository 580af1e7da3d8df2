"""`clickwise synth`: data with a planted signal, as columns or as raw logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clickwise.data.synthetic import SignalConfig, synthesize, synthesize_raw_criteo
from clickwise.recipe import parse


def synth(variant: str, *, out: Path, rows: int, test_rows: int | None, alpha: float, signal: str, seed: int,
          threads: int | None) -> dict[str, Any]:
    """What was written: the folder, its rows, and the best AUC that any model can reach on it."""
    test_rows = test_rows or max(rows // 10, 1)
    kind = parse(SignalConfig, {"kind": signal}, "--signal")
    if variant == "criteo_raw":
        return synthesize_raw_criteo(out, rows=rows, seed=seed, signal=kind)
    return synthesize(variant, {"train": rows, "test": test_rows}, out, seed=seed, alpha=alpha, signal=kind,
                      threads=threads)
