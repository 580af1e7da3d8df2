"""What a stage is given: sizes, the machine, and where its rows go."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from measure import append
from on_gpu.machine import Card, Rehearsal
from on_gpu.sizes import Sizes

ROWS = "rows.jsonl"


@dataclasses.dataclass(frozen=True)
class Context:
    sizes: Sizes
    machine: Card | Rehearsal
    folder: Path

    def row(self, stage: str, case: str, figure: str, measured: object, unit: str = "", *,
            predicted: float | None = None, published: float | None = None, holds: bool | None = None,
            **more: object) -> None:
        """One figure, on the disk at once.

        predicted  on one H100, before anything ran there; published: of the systems that the recipes are from, on one
                   A100; holds: whether a bound is kept, None where there is none
        """
        append(self.folder / ROWS, {"stage": stage, "case": case, "figure": figure, "measured": measured, "unit": unit,
                                    "predicted": predicted, "published": published, "holds": holds, **more})

    def ceilings(self) -> dict[str, float] | None:
        """`bytes_per_s` and `operations_per_s` of this machine, where they were measured before."""
        found = {row["figure"]: row["measured"] for row in rows_in(self.folder) if row["stage"] == "a"}
        if not {"copy", "product"} <= found.keys():
            return None
        return {"bytes_per_s": 1e9 * found["copy"], "operations_per_s": 1e12 * found["product"]}


def rows_in(folder: Path) -> list[dict]:
    """The rows that stages wrote; a last line that was cut off is left out."""
    rows = []
    for line in (folder / ROWS).read_text(encoding="utf-8").splitlines() if (folder / ROWS).exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            pass
    return rows
