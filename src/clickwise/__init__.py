"""clickwise: click-through-rate models from raw click logs."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# The public names and where they live; each is imported when first asked for, so that `import clickwise` is light.
_PLACES = {
    "FeatureSpec": "clickwise.feature_spec",
    "Batch": "clickwise.batch",
    "Ragged": "clickwise.batch",
    "Loader": "clickwise.data.loader",
    "read_columns": "clickwise.data.columns",
    "Embeddings": "clickwise.embedding",
    "Table": "clickwise.embedding",
    "TableOptimizer": "clickwise.embedding",
    "CTRModel": "clickwise.models.ctr_model",
    "DLRM": "clickwise.models.dlrm",
    "MetricSet": "clickwise.metrics",
    "build_metrics": "clickwise.metrics",
    "load_recipe": "clickwise.build",
    "build_trainer": "clickwise.build",
    "ClickwiseError": "clickwise.errors",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'clickwise' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
