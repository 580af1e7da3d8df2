"""Parts of a model that training leaves as they are, by the names that a recipe's `freeze` gives them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from clickwise.errors import RecipeError, nearest

ENGINE = "embeddings"  # what an engine is called in a model; a table's path is `embeddings.<table>`,
# and in a part of a model `<part>.embeddings.<table>`


def frozen_tables(freeze: Sequence[str], tables: Sequence[str]) -> set[str]:
    """Those of the paths of `tables` that the names in `freeze` stand for."""
    return {table for table in tables if any(part in freeze for part in _parts_above_table(table))}


def freeze_parameters(model: nn.Module, freeze: Sequence[str], tables: Sequence[str]) -> None:
    """Takes the gradient from the parameters of every module or parameter named in `freeze`.

    A name is what stands before a dot in `named_parameters` (`top`, `top.0`), or one of `frozen_tables`.
    RecipeError for a name that no part of the model has, and where nothing is left to train.
    """
    frozen = {name for name, _ in model.named_parameters() if any(part in freeze for part in _parts_above(name))}
    parts = {part: None for name, _ in model.named_parameters() for part in _parts_above(name)}
    parts |= {part: None for table in tables for part in _parts_above_table(table)}
    for name in freeze:
        if name not in parts:
            raise RecipeError("freeze", found=f"{name!r}", expected="a part of the model, or one of its tables",
                              do=nearest(name, sorted(parts, key=lambda part: part.count("."))))
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()) \
            and len(frozen_tables(freeze, tables)) == len(tables):
        raise RecipeError("freeze", found="every part of the model", expected="something left to train",
                          do="clickwise evaluate RUN measures a model as it is")


def _parts_above(name: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    pieces = name.split(".")
    return [".".join(pieces[:depth]) for depth in range(1, len(pieces) + 1)]


def _parts_above_table(path: str) -> list[str]:
    """`wide`, `wide.embeddings` and `wide.embeddings.a` of `wide.embeddings.a`; dots in the table's name stay."""
    part, _, _ = path.partition(f"{ENGINE}.")
    return [*_parts_above(part + ENGINE), path]
