"""clickwise: click-through-rate models from raw click logs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from clickwise.threads import let_them_sleep

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

if TYPE_CHECKING:  # `as` says that a name is exported
    from clickwise import metrics as metrics
    from clickwise.api import Model as Model
    from clickwise.api import build as build
    from clickwise.api import fit as fit
    from clickwise.api import fit_recipe as fit_recipe
    from clickwise.api import load as load
    from clickwise.api import prepare_recipe as prepare_recipe
    from clickwise.batch import Batch as Batch
    from clickwise.batch import Ragged as Ragged
    from clickwise.classifier import CTRClassifier as CTRClassifier
    from clickwise.data.columns import read_columns as read_columns
    from clickwise.data.dataset import DataConfig as DataConfig
    from clickwise.data.dataset import Dataset as Dataset
    from clickwise.data.loader import Loader as Loader
    from clickwise.embedding import Embeddings as Embeddings
    from clickwise.embedding import Table as Table
    from clickwise.embedding import TableOptimizer as TableOptimizer
    from clickwise.embedding import build_embeddings as build_embeddings
    from clickwise.encoding import Encoder as Encoder
    from clickwise.encoding import Encoding as Encoding
    from clickwise.errors import ClickwiseError as ClickwiseError
    from clickwise.feature_spec import Feature as Feature
    from clickwise.feature_spec import FeatureSpec as FeatureSpec
    from clickwise.metrics import Metric as Metric
    from clickwise.metrics import MetricSet as MetricSet
    from clickwise.metrics import build_metrics as build_metrics
    from clickwise.metrics import measure as measure
    from clickwise.models.ctr_model import CTRModel as CTRModel
    from clickwise.models.dcnv2 import DCNv2 as DCNv2
    from clickwise.models.dcnv2 import DCNv2Config as DCNv2Config
    from clickwise.models.dien import DIEN as DIEN
    from clickwise.models.dien import DIENConfig as DIENConfig
    from clickwise.models.din import DIN as DIN
    from clickwise.models.din import DINConfig as DINConfig
    from clickwise.models.dlrm import DLRM as DLRM
    from clickwise.models.dlrm import DLRMConfig as DLRMConfig
    from clickwise.models.sim import SIM as SIM
    from clickwise.models.sim import SIMConfig as SIMConfig
    from clickwise.models.wide_deep import WideDeep as WideDeep
    from clickwise.models.wide_deep import WideDeepConfig as WideDeepConfig
    from clickwise.optim.dense import DenseOptimizer as DenseOptimizer
    from clickwise.optim.schedule import Schedule as Schedule
    from clickwise.run.session import Session as Session
    from clickwise.run.session import build_session as build_session
    from clickwise.run.session import build_session as build_trainer
    from clickwise.train.loop import TrainConfig as TrainConfig
    from clickwise.train.step import TrainStep as TrainStep
    from clickwise.training_recipe import EmbeddingConfig as EmbeddingConfig
    from clickwise.training_recipe import PartConfig as PartConfig
    from clickwise.training_recipe import Recipe as Recipe
    from clickwise.training_recipe import load_recipe as load_recipe
    from clickwise.wiring import build_model as build_model
    from clickwise.wiring import parts_of as parts_of


def __getattr__(name: str) -> object:
    if name == "metrics":
        return importlib.import_module("clickwise.metrics")
    if name not in _SOURCES:
        raise AttributeError(f"module 'clickwise' has no attribute {name!r}")
    let_them_sleep()  # before torch is loaded, if it is not yet
    module, attribute = _SOURCES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
