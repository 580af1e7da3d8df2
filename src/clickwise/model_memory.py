"""The memory that a model takes, looked at before anything is allocated.

Counted is what it certainly takes, so that nothing is refused that would work: rows of tables and what their optimizer
keeps beside them; dense parameters, in training with gradients and what their optimizer keeps; of a step what
linear layers put out. The libraries, the data and what a step needs beside that come on top.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

import torch

from clickwise import processes
from clickwise.embedding.placement import Sharding
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import EngineError
from clickwise.memory_limits import Memory, memory, shown
from clickwise.progress import warn
from clickwise.training_recipe import Recipe

_STATES = {"adam": 2, "adagrad": 1, "ftrl": 2, "rmsprop": 1}  # values that a dense optimizer keeps beside each


def share_of(table: Table, sharding: Sharding, device: torch.device) -> Fraction:
    """How much of a table, at least, lies in the memory of `device`: on a CPU that of all processes of this machine."""
    here = processes.local_count() if device.type == "cpu" else 1
    return Fraction(here, processes.count()) if table.rows > sharding.copied_rows else Fraction(here)


def check_tables(tables: Sequence[Table], sizes: Mapping[str, Fraction],
                 optimizer_of: Callable[[str], TableOptimizer], table_dtype: str, device: torch.device) -> None:
    """Raises EngineError where the tables, of these bytes by path, take more memory than `device` has, and warns where
    that is not free now."""
    if not tables or (has := _memory_of(device)) is None:
        return
    largest = max(tables, key=lambda table: sizes[table.path])
    optimizer = optimizer_of(largest.part)
    of = f"{largest.rows:,} rows × {largest.dim} in {table_dtype}"
    if largest.trainable and optimizer.states():
        of += f" and what {optimizer.name} keeps beside them"
    _compare(round(sum(sizes.values())), has, f"tables; the largest, {largest.name!r}, has {of}: "
             f"{shown(round(sizes[largest.path]))}",
             "embedding.hash_indices=true embedding.max_table_size=N bounds the rows of each table; a smaller "
             "embedding dim and embedding.table_dtype=bfloat16 make rows smaller. Ids far beyond the number of rows "
             "are raw values: clickwise prepare table/prepare gives them ids 0, 1, 2, …")


def check_dense(build: Callable[[], torch.nn.Module], has_tables: Fraction, device: torch.device) -> None:
    """The same for the dense parameters of the model that `build` makes, on torch's `meta` device, which allocates
    nothing; beside `has_tables` bytes of tables."""
    if (has := _memory_of(device)) is None:
        return
    try:
        with torch.device("meta"):
            parameters = [parameter for parameter in build().parameters() if parameter.device.type == "meta"]
    except Exception:  # a model of your own that needs the values of its tensors
        return
    size = _bytes(parameters)
    largest = max(parameters, key=lambda parameter: parameter.numel(), default=None)
    if largest is not None:
        _compare(size + round(has_tables), has, f"dense parameters ({shown(size)}) and tables; the largest layer is "
                 + " × ".join(f"{length:,}" for length in largest.shape),
                 "make the layers of `model` narrower")


def check_training(recipe: Recipe, model: torch.nn.Module, device: torch.device) -> None:
    """The same for a training: gradients, what the optimizers keep, and what the layers put out for a batch."""
    if (has := _memory_of(device)) is None:
        return
    samples = -(-recipe.train.batch_size // processes.count())
    found = dense_bytes(recipe, model, samples)
    held, dense = _bytes([*model.parameters(), *model.buffers()]), found.gradients + found.optimizer
    _compare(held + dense + found.layers, has, f"model {shown(held)}, gradients and the optimizer's states "
             f"{shown(dense)}, layers for a batch of {samples:,}: {shown(found.layers)}",
             "lower train.batch_size" if found.layers > held + dense else "make the layers of `model` narrower, or "
             "bound the rows of tables: embedding.hash_indices=true embedding.max_table_size=N", already=held)


@dataclasses.dataclass(frozen=True)
class DenseBytes:
    """Bytes that a training takes beside its tables: `parameters`, their `gradients`, what the `optimizer` keeps of
    them, and what linear `layers` put out for the samples of a step."""

    parameters: int
    gradients: int
    optimizer: int
    layers: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.layers


def dense_bytes(recipe: Recipe, model: torch.nn.Module, samples: int) -> DenseBytes:
    """What the dense part of a model, on torch's `meta` device too, takes in a training with steps of `samples`."""
    trained = {path: parameter for path, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = 0
    for path, parameter in trained.items():
        settings = recipe.part(path.partition(".")[0]).optimizer
        optimizer += _bytes([parameter]) * (_STATES.get(settings.name, 0) + (settings.momentum > 0))
    width = sum(module.out_features for module in model.modules() if isinstance(module, torch.nn.Linear))
    value = 2 if recipe.train.precision in ("bf16", "fp16") else 4
    return DenseBytes(_bytes(model.parameters()), _bytes(trained.values()), optimizer, samples * width * value)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _memory_of(device: torch.device) -> Memory | None:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(total, free, "the memory of the GPU")
    return memory() if device.type == "cpu" else None


def _compare(size: int, has: Memory, what: str, do: str, already: int = 0) -> None:
    if size > has.total:
        raise EngineError("memory", found=f"at least {shown(size)} for {what}",
                          expected=f"at most {shown(has.total)}, {has.of}", do=do)
    if size - already > has.free:
        warn(f"memory: at least {shown(size - already)} more are needed ({what}), and {shown(has.free)} of {has.of} "
             "are free now")
