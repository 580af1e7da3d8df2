"""clickwise: click-through-rate models from raw click logs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

# The public names by the module they live in; each is imported when first asked for: `import clickwise` is light.
_NAMES = {
    "feature_spec": ("Feature", "FeatureSpec"),
    "api": ("Model", "build", "fit", "fit_recipe", "load", "prepare_recipe"),
    "classifier": ("CTRClassifier",),
    "encoding": ("Encoder", "Encoding"),
    "batch": ("Batch", "Ragged"),
    "data.loader": ("Loader",),
    "data.dataset": ("DataConfig", "Dataset"),
    "data.columns": ("read_columns",),
    "embedding": ("Embeddings", "Table", "TableOptimizer", "build_embeddings"),
    "models.ctr_model": ("CTRModel",),
    "models.dlrm": ("DLRM", "DLRMConfig"),
    "models.dcnv2": ("DCNv2", "DCNv2Config"),
    "models.wide_deep": ("WideDeep", "WideDeepConfig"),
    "models.din": ("DIN", "DINConfig"),
    "models.dien": ("DIEN", "DIENConfig"),
    "models.sim": ("SIM", "SIMConfig"),
    "metrics": ("Metric", "MetricSet", "build_metrics", "measure"),
    "optim.dense": ("DenseOptimizer",),
    "optim.schedule": ("Schedule",),
    "train.loop": ("TrainConfig",),
    "train.step": ("TrainStep",),
    "training_recipe": ("EmbeddingConfig", "PartConfig", "Recipe", "load_recipe"),
    "wiring": ("build_model", "parts_of"),
    "run.session": ("Session", "build_session"),
    "errors": ("ClickwiseError",),
}
_SOURCES = {name: (f"clickwise.{module}", name) for module, names in _NAMES.items() for name in names} | {
    "build_trainer": ("clickwise.run.session", "build_session"),  # its earlier name
}
__all__ = ["__version__", "metrics", *_SOURCES]

if TYPE_CHECKING:
    from clickwise import metrics
    from clickwise.api import Model, build, fit, fit_recipe, load, prepare_recipe
    from clickwise.batch import Batch, Ragged
    from clickwise.classifier import CTRClassifier
    from clickwise.data.columns import read_columns
    from clickwise.data.dataset import DataConfig, Dataset
    from clickwise.data.loader import Loader
    from clickwise.embedding import Embeddings, Table, TableOptimizer, build_embeddings
    from clickwise.encoding import Encoder, Encoding
    from clickwise.errors import ClickwiseError
    from clickwise.feature_spec import Feature, FeatureSpec
    from clickwise.metrics import Metric, MetricSet, build_metrics, measure
    from clickwise.models.ctr_model import CTRModel
    from clickwise.models.dcnv2 import DCNv2, DCNv2Config
    from clickwise.models.dien import DIEN, DIENConfig
    from clickwise.models.din import DIN, DINConfig
    from clickwise.models.dlrm import DLRM, DLRMConfig
    from clickwise.models.sim import SIM, SIMConfig
    from clickwise.models.wide_deep import WideDeep, WideDeepConfig
    from clickwise.optim.dense import DenseOptimizer
    from clickwise.optim.schedule import Schedule
    from clickwise.run.session import Session, build_session
    from clickwise.run.session import build_session as build_trainer
    from clickwise.train.loop import TrainConfig
    from clickwise.train.step import TrainStep
    from clickwise.training_recipe import EmbeddingConfig, PartConfig, Recipe, load_recipe
    from clickwise.wiring import build_model, parts_of


def __getattr__(name: str) -> object:
    if name == "metrics":
        return importlib.import_module("clickwise.metrics")
    if name not in _SOURCES:
        raise AttributeError(f"module 'clickwise' has no attribute {name!r}")
    module, attribute = _SOURCES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
