"""What the report shows by feature value: which features and values are followed, and how they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from clickwise import files, processes
from clickwise.batch import Batch
from clickwise.data.dataset import Dataset
from clickwise.metrics import ReportMaterial
from clickwise.run.session import Session

FEATURES, VALUES = 12, 10


class Slices:
    """Gathers the report's material while mappings are evaluated: `evaluate(mapping, slices.watch(mapping))`.

    Followed are the first twelve one-hot features, of each the first ten ids: prepared vocabularies give the most
    frequent values the first ids.
    """

    def __init__(self, session: Session) -> None:
        features = session.dataset.spec.channel("categorical")
        one_hot = [(index, feature) for index, feature in enumerate(features) if not feature.is_multi_hot][:FEATURES]
        self._positions = {feature.name: index for index, feature in one_hot}
        self._follow = {feature.name: range(min(VALUES, feature.cardinality)) for _, feature in one_hot}
        self._names = {name: _value_names(session.dataset, name) for name in self._positions}
        self._materials: dict[str, ReportMaterial] = {}

    def watch(self, mapping: str) -> Callable[[torch.Tensor, Batch], None]:
        """What `evaluate` calls with every batch of `mapping`."""
        material = self._materials[mapping] = ReportMaterial(self._follow)

        def see(logit_B: torch.Tensor, batch: Batch) -> None:
            ids = {name: batch.categorical[position] for name, position in self._positions.items()}
            material.update(logit_B, batch.label, ids)

        return see

    def save(self, folder: Path) -> None:
        """Writes `scores.npz` of the run folder; of several processes the first, with what all have gathered."""
        arrays = {}
        for mapping, mine in self._materials.items():
            if not (of_all := processes.at_first(mine)):
                continue
            for other in of_all[1:]:
                of_all[0].merge(other)
            arrays |= of_all[0].arrays(mapping, self._names)
        if not processes.is_first():
            return
        with files.whole_file(folder / "scores.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)


def _value_names(dataset: Dataset, feature: str) -> dict[int, str]:
    """Id → value out of the vocabulary that preparation saved, {} where it saved none."""
    file = f"preparation/vocabularies/{files.file_stem(feature)}.parquet"
    names = {0: "missing or rare"}
    if dataset.spec.folder == Path() or not (dataset.spec.folder / file).exists():
        return {}
    path = dataset.manifest.verified(file)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=["id", "value"], filters=[("id", "<", VALUES)])
    return names | {row["id"]: str(row["value"]) for row in table.to_pylist()}
