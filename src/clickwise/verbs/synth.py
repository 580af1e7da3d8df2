"""`clickwise synth`: data with a planted signal, as columns or as raw logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clickwise.data.synthetic import (
    SignalConfig,
    synthesize,
    synthesize_raw_amazon,
    synthesize_raw_criteo,
    synthesize_raw_outbrain,
)
from clickwise.data.synthetic.generate import VARIANTS
from clickwise.errors import UsageError
from clickwise.feature_spec import FeatureSpec
from clickwise.recipe import parse


def synth(variant: str, *, out: Path, rows: int, test_rows: int | None, alpha: float, signal: str, seed: int,
          threads: int | None, users: int | None = None) -> dict[str, Any]:
    """What was written: `folder`, and of every mapping its rows and the best that any model can reach on it, as
    `train rows`, `train best_auc` and so on.

    `variant` is one of Criteo's tables, the path of a Feature Spec, all of whose mappings are made (`test_rows` each,
    but `rows` for train), or raw logs, which have no mappings: criteo_raw, or outbrain_raw and amazon_raw, whose
    signals are their own. The size of amazon_raw is its `users`.
    """
    if (users is not None) != (variant == "amazon_raw"):
        raise UsageError("--users", found="nothing" if users is None else f"{users} for {variant}",
                         expected="a number of users for amazon_raw, and only there", do="clickwise synth amazon_raw "
                         "--users 10000 --out FOLDER" if users is None else "--rows is the size of the others")
    if variant == "amazon_raw":
        return {"folder": str(out), **synthesize_raw_amazon(out, users, seed=seed, threads=threads)}
    test_rows = test_rows or max(rows // 10, 1)
    kind = parse(SignalConfig, {"kind": signal}, "--signal")
    if variant == "criteo_raw":
        figures = synthesize_raw_criteo(out, rows=rows, seed=seed, alpha=alpha, signal=kind, threads=threads)
        return {"folder": str(out), **figures}
    if variant == "outbrain_raw":
        if signal != "additive":
            raise UsageError("--signal", found=signal, expected="additive, or nothing: outbrain_raw has its own signal")
        figures = synthesize_raw_outbrain(out, rows=rows, test_rows=test_rows, seed=seed, alpha=alpha, threads=threads)
        return {"folder": str(out), **figures}
    figures = synthesize(variant, _rows_of(variant, rows, test_rows), out, seed=seed, alpha=alpha, signal=kind,
                         threads=threads)
    return {"folder": str(out), **{f"{mapping} {name}": value for mapping, values in figures.items()
                                   for name, value in values.items()}}


def _rows_of(variant: str, rows: int, test_rows: int) -> dict[str, int]:
    """Mapping -> its rows; a spec without mappings, or without train, gets train and test."""
    mappings: tuple[str, ...] = ()
    if variant not in VARIANTS and Path(variant).exists():
        mappings = tuple(FeatureSpec.load(variant).mappings)
    if "train" not in mappings:
        mappings = ("train", "test")
    return {mapping: rows if mapping == "train" else test_rows for mapping in mappings}
