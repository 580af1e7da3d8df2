"""`clickwise plan`: what a training takes of several processes, here or elsewhere: where its tables lie, the memory of
each process, and what they send each other in a step. Nothing is allocated, and the data need not be there."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clickwise.data.dataset import Dataset
from clickwise.data.synthetic import SyntheticConfig
from clickwise.data.synthetic.power_law import power_law
from clickwise.embedding.plan import Bytes, Placed, Sent, place_tables, reason, sent
from clickwise.embedding.table import Table
from clickwise.embedding.tables import table_bytes
from clickwise.errors import ClickwiseError, DataError, EngineError, UsageError
from clickwise.feature_spec import FILE_NAME, ID_CHANNELS, check_encoded
from clickwise.memory_limits import parse_bytes
from clickwise.model_memory import DenseBytes, dense_bytes
from clickwise.models.ctr_model import CTRModel
from clickwise.training_recipe import EmbeddingConfig, Recipe, load_recipe
from clickwise.wiring import build_model, engines_of

ALPHA = 1.45  # of the power law, where nothing is known of the ids; that of NVIDIA's synthetic Criteo data
MOST_PROCESSES = 1024  # that are tried


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained, without its values: the recipe, its data, tables and dense part."""

    recipe: Recipe
    dataset: Dataset
    model: CTRModel
    tables: tuple[Table, ...]

    def dense(self, processes: int, recipe: Recipe | None = None) -> DenseBytes:
        """What the dense part takes of each process."""
        recipe = recipe or self.recipe
        return dense_bytes(recipe, self.model, -(-recipe.train.batch_size // processes))

    def placed(self, processes: int, embedding: EmbeddingConfig | None = None) -> list[Placed]:
        """The tables among so many processes, as this or another `embedding` section wants them."""
        recipe = dataclasses.replace(self.recipe, embedding=embedding or self.recipe.embedding)
        embedding = recipe.embedding

        def bytes_of(table: Table) -> Bytes:
            optimizer = recipe.part(table.part).table_optimizer
            rows = table_bytes(dataclasses.replace(table, trainable=False), optimizer, embedding.table_dtype)
            return Bytes(rows, table_bytes(table, optimizer, embedding.table_dtype) - rows)

        tables = [embedding.clipped(table) for table in self.tables]
        return place_tables(tables, embedding.sharding, processes, bytes_of)

    def fullest(self, processes: int, embedding: EmbeddingConfig | None = None, recipe: Recipe | None = None) -> int:
        """Bytes of the process that holds most."""
        placed = self.placed(processes, embedding)
        return max(_held(placed, process).total for process in range(processes)) + self.dense(processes, recipe).total


def _held(placed: Iterable[Placed], process: int) -> Bytes:
    return sum((each.bytes_at(process) for each in placed), Bytes(0, 0))


def plan(name: str, overrides: list[str], *, gpus: int | None = None, processes: int | None = None,
         memory: str | None = None, cardinalities: str | None = None, alpha: float | None = None,
         bandwidth: str | None = None, trust_paths: bool = False) -> dict[str, Any]:
    """What `verbs.plan_text` prints; bytes throughout.

    `memory` is what one process may take, "80GB". `cardinalities` names Criteo's published tables or a Feature Spec,
    where the data is not here. `alpha` is the exponent of the power law that ids are taken to follow; without it they
    are counted, where the data is here. `bandwidth` is what a process sends in a second, "50GB".
    """
    option, count = _processes(gpus, processes)
    limit, speed = _size("--memory", memory), _size("--bandwidth", bandwidth)
    if alpha is not None and not 0 <= alpha < 64:
        raise UsageError("--alpha", found=str(alpha), expected="0 (all ids alike) or more, 1.45 for example")
    training = _training(load_recipe(name, overrides), cardinalities, trust_paths)
    recipe, batch = training.recipe, training.recipe.train.batch_size
    if count > batch:
        raise UsageError(option, found=f"{count:,} for a batch of {batch:,}",
                         expected="at least one sample of every batch for each process",
                         do=f"take {batch:,} at most, or raise train.batch_size")
    placed = training.placed(count)
    _check_rows(placed, option, count)
    sharding, dense = recipe.embedding.sharding, training.dense(count)
    assumptions = _lookups(training, -(-batch // count), alpha)
    held = [_held(placed, process) for process in range(count)]
    per_process = [{"process": process, "rows_bytes": bytes_.rows, "optimizer_bytes": bytes_.optimizer,
                    "bytes": bytes_.total + dense.total} for process, bytes_ in enumerate(held)]
    largest = max(each["bytes"] for each in per_process)
    fits = None if limit is None else largest <= limit
    return {
        "recipe": name, "overrides": list(overrides), "model": recipe.model_name, "processes": count,
        "gpus": option == "--gpus", "memory_bytes": limit, "fits": fits,
        "cardinalities": cardinalities or recipe.data.path or "data.synthetic", "batch_size": batch,
        "samples_per_process": -(-batch // count), "table_dtype": recipe.embedding.table_dtype,
        "sharding": dataclasses.asdict(sharding),
        "tables": [_row(each, recipe, assumptions) for each in placed],
        "per_process": per_process, "largest_bytes": largest,
        "balance": _balance([bytes_.total for bytes_ in held]),
        "dense": {**dataclasses.asdict(dense), "total": dense.total},
        "exchange": [_exchange(training, placed, count, assumption, different, speed)
                     for assumption, different in assumptions.items()] if count > 1 else [],
        "helps": _helps(training, count, limit, option) if fits is False else [],
    }


def _processes(gpus: int | None, processes: int | None) -> tuple[str, int]:
    if (gpus is None) == (processes is None):
        raise UsageError("--gpus", found="neither --gpus nor --processes" if gpus is None else "--processes beside it",
                         expected="one of them", do="clickwise plan criteo/dlrm_large --gpus 8 --memory 80GB")
    option, count = ("--gpus", gpus) if gpus is not None else ("--processes", processes)
    if count < 1:
        raise UsageError(option, found=str(count), expected="a number from 1")
    return option, count


def _size(option: str, text: str | None) -> int | None:
    size = None if text is None else parse_bytes(text)
    if text is not None and not (size and size > 0):
        raise UsageError(option, found=repr(text), expected="a size such as 80GB, 640MB or 79GiB")
    return size


def _training(recipe: Recipe, cardinalities: str | None, trust_paths: bool) -> Training:
    """The recipe with the cardinalities of its data, or of what stands for it; the model on torch's `meta` device."""
    data = recipe.data
    if cardinalities is not None:
        data = dataclasses.replace(data, path=None, synthetic=SyntheticConfig(spec=cardinalities))
    elif data.path is not None and not (Path(data.path).is_file() or (Path(data.path) / FILE_NAME).exists()):
        raise DataError(data.path, found=f"no {FILE_NAME} there", expected="the prepared data, which says how many ids "
                        "each feature has", do="name what says it: --cardinalities criteo_t15, criteo_t3, criteo_t0 "
                        "(the published tables of Criteo) or a Feature Spec")
    dataset = Dataset(data, trust_paths=trust_paths)
    check_encoded(dataset.stored)
    without_engine = dataclasses.replace(recipe, embedding=dataclasses.replace(recipe.embedding, engine="reference"))
    try:
        with torch.device("meta"):
            model = build_model(without_engine, dataset.spec, torch.device("meta"))
    except ClickwiseError:
        raise
    except Exception as error:  # a model of your own that needs the values of its tensors
        raise EngineError(f"model {recipe.model_name}", found=f"{type(error).__name__}: {str(error)[:200]}",
                          expected="a model that can be built on torch's `meta` device, where tensors have no values"
                          ) from None
    recipe = dataclasses.replace(recipe, data=data)
    return Training(recipe, dataset, model, tuple(table for engine in engines_of(model) for table in engine.tables))


def _check_rows(placed: Sequence[Placed], option: str, processes: int) -> None:
    rows = sum(each.table.rows for each in placed if each.place.kind != "copied")
    if 0 < rows < processes:
        raise UsageError(option, found=f"{processes:,} for {rows:,} rows", expected="at least one row for each process",
                         do=f"take {rows:,} at most, or copy the tables: embedding.sharding.copied_rows={rows}")


def _row(placed: Placed, recipe: Recipe, assumptions: dict[str, dict[str, float]]) -> dict[str, Any]:
    table, place = placed.table, placed.place
    return {"table": table.path.removeprefix("embeddings."), "rows": table.rows, "dim": table.dim,
            "features": list(table.features), "trained": table.trainable, "lies": place.kind,
            "process": place.owner if place.kind == "whole" else None,
            "why": reason(place, recipe.embedding.sharding, placed.processes),
            "rows_bytes": placed.whole.rows, "optimizer_bytes": placed.whole.optimizer,
            "most_bytes_of_a_process": max(placed.bytes_at(process).total for process in range(placed.processes)),
            "different": {assumption: different[table.path] for assumption, different in assumptions.items()}}


def _balance(held: Sequence[int]) -> float | None:
    """How many times the mean the fullest process holds of tables; None without tables."""
    return max(held) * len(held) / sum(held) if sum(held) else None


def _exchange(training: Training, placed: Sequence[Placed], processes: int, assumption: str,
              different: dict[str, float], speed: int | None) -> dict[str, Any]:
    """What the process that sends most sends in a step."""
    values = sum(parameter.numel() for parameter in training.model.parameters() if parameter.requires_grad)
    embedding = training.recipe.embedding
    of_all: list[Sent] = [sent(placed, different, process, processes, table_dtype=embedding.table_dtype,
                               wire=embedding.sharding.wire, dense_values=values) for process in range(processes)]
    most = max(of_all, key=lambda each: each.total)
    return {"assumption": assumption, "process": of_all.index(most), "different": sum(different.values()),
            **{f"{kind}_bytes": value for kind, value in dataclasses.asdict(most).items()}, "bytes": most.total,
            "seconds": None if speed is None else most.total / speed}


# How many different rows a process looks up in a step -----------------------------------------------------------------


def _lookups(training: Training, samples: int, alpha: float | None) -> dict[str, dict[str, float]]:
    """By what is assumed of repeated ids: by the path of a table the different rows that `samples` samples look up.
    The first assumption is the bound."""
    data, tables = training.recipe.data, training.tables
    most = {table.path: samples * sum(_ids_of(training, feature) for feature in table.features) for table in tables}
    found = {"all ids differ": {table.path: float(min(most[table.path], table.rows)) for table in tables}}
    mapping = training.dataset.stored.mappings.get(data.train)
    if alpha is None and data.path is not None and mapping:
        counted = _counted(training, samples)
        found["ids as often as in training"] = {table.path: counted(table) for table in tables}
        return found
    if alpha is None:
        alpha = ALPHA if data.synthetic is None else data.synthetic.alpha
    found[f"a power law, alpha {alpha:g}"] = {
        table.path: power_law(table.rows, float(alpha)).different(most[table.path]) for table in tables}
    return found


def _ids_of(training: Training, name: str) -> int:
    """The most ids that a sample has of a feature; one of what is no feature of the data, a cross."""
    spec = training.dataset.spec
    for index, channel in enumerate(("history", "negative_history")):
        if name in spec.channels.get(channel, ()):
            return training.recipe.data.histories.lengths(spec)[index]
    return (spec.features[name].max_hotness or 1) if name in spec.features else 1


def _counted(training: Training, samples: int) -> Callable[[Table], float]:
    """The same of one table, from how often every id occurs in the training mapping; targets and negatives that are
    drawn for a sample are taken to differ."""
    dataset = training.dataset
    rows = dataset.train_columns().rows
    of_data = {name for channel in ID_CHANNELS for name in dataset.spec.channels.get(channel, ())}
    counts = dataset.train_counts(of_data & {name for table in training.tables for name in table.features})
    targets = dataset.spec.channels.get("target_item", ())

    def different(table: Table) -> float:
        missed, drawn = np.zeros(table.rows), 0.0
        for name in table.features:
            total = int(counts[name].sum()) if name in counts else 0
            if not total or name in targets:
                drawn += samples * (_ids_of(training, name) - total / rows)
            if total:
                of_rows = np.bincount(np.arange(len(counts[name])) % table.rows, counts[name], minlength=table.rows)
                with np.errstate(divide="ignore"):  # an id that is alone is surely there
                    missed += samples * total / rows * np.log1p(-of_rows / total)
        return float(min(-np.expm1(missed).sum() + drawn, table.rows))

    return different


# What would help ------------------------------------------------------------------------------------------------------


def _helps(training: Training, processes: int, limit: int, option: str) -> list[dict[str, Any]]:
    """Changes, each alone, and the bytes of the fullest process with them; those that suffice first."""
    found = [{"do": do, "bytes": size, "fits": size <= limit}
             for do, size in _changes(training, processes, limit, option)]
    return sorted(found, key=lambda change: not change["fits"])


def _changes(training: Training, processes: int, limit: int, option: str) -> Iterator[tuple[str, int]]:
    recipe, embedding = training.recipe, training.recipe.embedding
    more = [count for count in (*range(1, 17), *range(24, 129, 8), 256, 512, MOST_PROCESSES)
            if processes < count <= recipe.train.batch_size]
    if more:
        count = next((count for count in more if training.fullest(count) <= limit), more[-1])
        yield f"{option} {count}", training.fullest(count)
    if embedding.sharding.by == "tables" and processes > 1:
        rows = dataclasses.replace(embedding, sharding=dataclasses.replace(embedding.sharding, by="rows"))
        yield "embedding.sharding.by=rows", training.fullest(processes, rows)
    if embedding.table_dtype != "bfloat16":
        yield "embedding.table_dtype=bfloat16", training.fullest(
            processes, dataclasses.replace(embedding, table_dtype="bfloat16"))
    if any(not state.per_row for state in embedding.optimizer.states().values()):
        optimizer = type(embedding.optimizer)(name="rowwise_adagrad")
        yield "embedding.optimizer={name: rowwise_adagrad, lr: …}", training.fullest(
            processes, dataclasses.replace(embedding, optimizer=optimizer))
    if (rows := _most_rows(training, processes, limit)) is not None:
        hashed = dataclasses.replace(embedding, hash_indices=True, max_table_size=rows)
        yield f"embedding.hash_indices=true embedding.max_table_size={rows}", training.fullest(processes, hashed)
    if training.dense(processes).layers > limit // 10:
        smaller = dataclasses.replace(recipe, train=dataclasses.replace(
            recipe.train, batch_size=max(processes, recipe.train.batch_size // 4)))
        yield f"train.batch_size={smaller.train.batch_size}", training.fullest(processes, recipe=smaller)


def _most_rows(training: Training, processes: int, limit: int) -> int | None:
    """The most rows that tables may have for all to fit, of two digits; None where even small ones do not."""
    largest = max((table.rows for table in training.tables), default=0)
    sizes = [digits * 10**power for power in range(3, 13) for digits in range(10, 100)]
    first_too_large = bisect.bisect_right(sizes, limit, hi=bisect.bisect_left(sizes, largest), key=lambda rows: (
        training.fullest(processes, dataclasses.replace(training.recipe.embedding, hash_indices=True,
                                                        max_table_size=rows))))
    return sizes[first_too_large - 1] if first_too_large else None
