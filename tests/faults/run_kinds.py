"""What clickwise wrote itself and reads later, damaged: columns, checkpoints, run folders, encodings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from faults import raw_kinds
from faults.children import command
from faults.kinds import Close, Kind, Told, of_command, unchanged
from faults.mutate import BYTES, STRUCTURE

SMALL = ("train.batch_size=10", "train.epochs=1", "train.checkpoint_every=2", "train.threads=1", "model.cross_rank=4",
         "model.bottom_mlp=[8]", "model.top_mlp=[8]", "data.validation=null", "data.test=train")


def make_run(folder: Path) -> None:
    """rows.csv, data/ prepared of it, a run on that in runs/."""
    raw_kinds.make_table(folder)
    of_command(command("prepare", "table/prepare", "dataset.spec=.", "dataset.test_share=0.2",
                       "dataset.validation_share=0", "out=data", "engine.threads=1", folder=folder))
    of_command(command("train", "table/dcnv2", f"data.path={folder / 'data'}", *SMALL, "--out", folder / "runs",
                       folder=folder))


def _run(folder: Path) -> Path:
    return next(folder.glob("runs/*-*/*"))


def read_scores(folder: Path) -> dict[str, np.ndarray]:
    """The logits of the raw rows."""
    of_command(command("predict", _run(folder), "--input", folder / "rows.csv", "--out", folder / "scores.parquet"))
    return {"logit": pq.read_table(folder / "scores.parquet")["logit"].to_numpy()}


def read_columns(folder: Path) -> dict[str, list]:
    """All values of the prepared columns, as they are checked and handed on before training."""
    from clickwise.data.dataset import Dataset
    from clickwise.training_recipe import parse_recipe

    recipe = parse_recipe({"data": {"path": str(folder / "data"), "validation": None}, "model": {"name": "dcnv2"}}, "x")
    data, found = Dataset(recipe.data), {}
    for mapping in data.spec.mappings:
        columns = data.columns(mapping)
        arrays = {**columns.arrays, "numerical": columns.numerical}
        found[mapping] = {name: np.ascontiguousarray(array) if isinstance(array, np.ndarray) else
                          [np.asarray(array.values), np.asarray(array.offsets)] for name, array in arrays.items()
                          if array is not None}
    return found


def read_all_of_a_run(folder: Path) -> dict:
    """Scores; what report, evaluate and resume make of the rest only has to be a message where it fails."""
    told = None
    for words in (("evaluate", _run(folder)), ("report", _run(folder)), ("train", "--resume", _run(folder))):
        try:
            of_command(command(*words, folder=folder))
        except Told as error:
            told = error
    found = read_scores(folder)
    if told is not None:
        raise told
    return found


def about_the_same(folder: Path, good: dict) -> list[dict]:
    """A recipe may be changed by a person: other batches, the same scores."""
    return [{name: Close(values.astype(np.float64)) for name, values in good.items()}]


def columns_of(folder: Path) -> list[Path]:
    return [path for path in (folder / "data").rglob("*.bin")]


def checkpoints_of(folder: Path) -> list[Path]:
    return [_run(folder) / "checkpoint/last.pt"]


def encoding_of(folder: Path) -> list[Path]:
    return [path for path in (_run(folder) / "encoding").rglob("*") if path.is_file()]


def texts_of_run(folder: Path) -> list[Path]:
    return [path for path in _run(folder).iterdir() if path.suffix in (".yaml", ".json", ".jsonl")]


KINDS = [
    Kind("columns", make_run, columns_of, BYTES, read_columns, unchanged),
    Kind("checkpoint", make_run, checkpoints_of, BYTES, read_scores, unchanged),
    Kind("run folder", make_run, texts_of_run, STRUCTURE, read_all_of_a_run, about_the_same),
    Kind("encoding", make_run, encoding_of, [*BYTES, *STRUCTURE], read_scores, unchanged),
]
