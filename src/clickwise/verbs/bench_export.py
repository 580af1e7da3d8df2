"""`clickwise bench EXPORT --what inference`: how fast an exported graph scores, with nothing around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clickwise import machine
from clickwise.serve.exported import ExportedModel, Tensors
from clickwise.serve.inputs import PADDING
from clickwise.serve.signature import Signature
from clickwise.verbs.timing import WaitingClock, time_calls

BAG = 3  # ids in a list at most


def bench_export(folder: Path, *, steps: int = 50, warmup: int = 10,
                 batch_sizes: tuple[int, ...] = ()) -> dict[str, Any]:
    """A row of figures per batch size (`rows`), of numbers and ids drawn at random; the encoding is not in them."""
    exported = ExportedModel(folder, threads=machine.usable_cores())
    rows = []
    for size in batch_sizes or (1, 64, 2048):
        given = random_tensors(exported.signature, size)
        rows.append({"batch_size": size, **time_calls(lambda given=given: exported.run(given), WaitingClock(), size,
                                                      steps, warmup)})
    return {"what": "inference", "export": str(folder), "model": exported.signature.model, "steps": steps,
            "warmup": warmup, "rows": rows, **machine.circumstances()}


def random_tensors(signature: Signature, rows: int, seed: int = 0) -> Tensors:
    """What a graph takes, drawn at random; histories are full."""
    dice, found = np.random.default_rng(seed), {}
    for given in signature.inputs:
        sizes = [signature.ids.get(name, 1) for name in given.features]
        if given.kind == "numerical":
            found[given.name] = dice.standard_normal((rows, len(given.features)), np.float32)
        elif given.kind == "ids":
            found[given.name] = dice.integers(0, sizes, (rows, len(sizes)))
        elif given.kind == "bag":
            ids = dice.integers(0, sizes[0], (rows, BAG))
            ids[np.arange(BAG) >= dice.integers(0, BAG + 1, rows)[:, None]] = PADDING
            found[given.name] = ids
        else:
            found[given.name] = dice.integers(1, sizes[0], (rows, given.length or given.most))
    return found
