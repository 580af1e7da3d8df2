"""What short names stand for: models, datasets, metrics, optimizers, engines; what keeps the states of a server; where
logs of runs go.

Beside the short names below, the dotted path of something of your own works everywhere, `package.module.Name` or
`package.module:Name`. Importing it runs its code, so a path has to come from the user: the command line, a recipe file,
a call. What lies in a folder that may be another's (a run) passes `refuse_foreign` first.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from clickwise.errors import RecipeError, nearest

Kind = Literal["model", "dataset", "metric", "optimizer", "engine", "store", "sink"]

NAMES: dict[Kind, dict[str, str]] = {
    "model": {"dlrm": "clickwise.models.dlrm:DLRM", "dcnv2": "clickwise.models.dcnv2:DCNv2",
              "wide_deep": "clickwise.models.wide_deep:WideDeep", "din": "clickwise.models.din:DIN",
              "dien": "clickwise.models.dien:DIEN", "sim": "clickwise.models.sim:SIM"},
    "dataset": {name: f"clickwise.prepare:{name}" for name in ("amazon_books", "criteo", "kuairand", "outbrain",
                                                               "table")},
    "metric": {"auc": "clickwise.metrics.roc:AUC", "exact_auc": "clickwise.metrics.roc:ExactAUC",
               "log_loss": "clickwise.metrics.losses:LogLoss",
               "normalized_entropy": "clickwise.metrics.losses:NormalizedEntropy",
               "calibration": "clickwise.metrics.reliability:Calibration",
               "gauc": "clickwise.metrics.auc_in_groups:GAUC",
               "accuracy": "clickwise.metrics.losses:Accuracy", "map": "clickwise.metrics.ranking:MAP",
               "ndcg": "clickwise.metrics.ranking:NDCG", "mrr": "clickwise.metrics.ranking:MRR",
               "hit_rate": "clickwise.metrics.ranking:HitRate"},
    "optimizer": {"sgd": "torch.optim:SGD", "adagrad": "torch.optim:Adagrad", "adam": "torch.optim:AdamW",
                  "rmsprop": "torch.optim:RMSprop", "ftrl": "clickwise.optim.dense:FTRL"},
    "engine": {"reference": "clickwise.embedding.reference:ReferenceEmbeddings",
               "fused": "clickwise.embedding.fused:FusedEmbeddings",
               "sharded": "clickwise.embedding.sharded:ShardedEmbeddings"},
    "store": {"memory": "clickwise.serve.states.memory:MemoryStore",
              "sqlite": "clickwise.serve.states.sqlite:SqliteStore",
              "redis": "clickwise.serve.states.redis_store:RedisStore"},
    "sink": {"tensorboard": "clickwise.report.sinks:TensorBoard", "mlflow": "clickwise.report.sinks:MLflow"},
}


def is_path(name: object) -> bool:
    """Whether this is the dotted path of something of your own, and no short name."""
    parts = name.replace(":", ".").split(".") if isinstance(name, str) else []
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def resolve(kind: Kind, name: object, where: str) -> Any:
    """What the name stands for; RecipeError, at `where`, for one that is no short name and cannot be imported."""
    known = NAMES[kind]
    path = known.get(name, name) if isinstance(name, str) else name
    if not is_path(path):
        hint = nearest(name, known)
        raise RecipeError(where, found=repr(name), expected=f"one of {', '.join(known)}",
                          do=f"{hint}{'' if hint.endswith('?') else '.'} A dotted path to one of your own works too")
    module, _, attribute = path.replace(":", ".").rpartition(".")
    if path == name and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # what is one's own stands beside one's recipes
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute, None) or importlib.import_module(f"{module}.{attribute}")
    except ImportError as error:
        if path != name:
            raise  # it is ours
        raise RecipeError(where, found=f"{name!r}: {error}",
                          expected=f"one of {', '.join(known)}, or a dotted path that can be imported",
                          do="check the path, and that its package is installed") from None


def refuse_foreign(sections: Mapping[str, Any], where: str, allowed: Collection[str] = ()) -> None:
    """RecipeError where a recipe that the user did not write names code to import that is not `allowed`."""
    for key, name in _names_in(sections):
        if is_path(name) and name not in allowed:
            raise RecipeError(f"{where}: {key}", found=f"{name!r}, code that would be imported",
                              expected="short names: this file may be another's",
                              do=f"--allow-import {name}, if you trust it")


def _names_in(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every place of a recipe where a name of code stands: `name`, `engine` and the list `metrics`, at any depth."""
    if isinstance(value, Mapping):
        for inner, item in value.items():
            path = f"{key}.{inner}" if key else str(inner)
            if inner in ("name", "engine") and not isinstance(item, Mapping):
                yield path, item
            elif inner == "metrics" and isinstance(item, list):
                yield from ((f"{path}[{index}]", name) for index, name in enumerate(item))
            else:
                yield from _names_in(item, path)
