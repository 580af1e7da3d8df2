"""`CTRClassifier`: the whole way from raw rows to probabilities as a scikit-learn classifier."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from clickwise.api import Model, fit
from clickwise.tables import as_table

FEW = 200  # rows, below which none are held back for validation


class CTRClassifier(ClassifierMixin, BaseEstimator):
    """`fit(X, y)` and `predict_proba(X)` as `clickwise.fit` and `Model.predict_proba`: X is a frame whose columns may
    hold anything, or a matrix of numbers; y has two classes, of which the second in order is the click.

    The parameters are those of `clickwise.fit`; below 200 rows none validate, and the checkpoint of the best log loss
    is kept, which `predict` needs more than the best AUC. After `fit`: `model_` (a `Model`), `classes_`,
    `n_features_in_`, and `feature_names_in_` where X has names.
    """

    def __init__(self, model: str = "dcnv2", *, validation: float = 0.1, time: str | None = None,
                 categorical: Sequence[str] = (), numerical: Sequence[str] = (),
                 multi_hot: Mapping[str, str] | None = None, ignore: Sequence[str] = (),
                 settings: Mapping[str, Any] | None = None, prepare_settings: Mapping[str, Any] | None = None,
                 seed: int = 0) -> None:
        self.model = model
        self.validation = validation
        self.time = time
        self.categorical = categorical
        self.numerical = numerical
        self.multi_hot = multi_hot
        self.ignore = ignore
        self.settings = settings
        self.prepare_settings = prepare_settings
        self.seed = seed

    def fit(self, X: Any, y: Any) -> CTRClassifier:
        if y is None:
            raise ValueError("CTRClassifier requires y to be passed, but the target y is None")
        table, numbers = self._table(X, reset=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if len(y) != len(table):
            raise ValueError(f"X has {len(table)} rows and y {len(y)}")
        self.classes_ = np.unique(y)
        if len(self.classes_) != 2:
            what = "one class" if len(self.classes_) == 1 else f"{len(self.classes_)} classes"
            raise ValueError(f"Only binary classification is supported. The target has {what}: a click or none.")
        label = "label"
        while label in table.column_names:
            label += "_"
        table = table.append_column(label, pa.array((y == self.classes_[1]).astype(np.int8)))
        self.model_ = fit(table, label=label, time=self.time, validation=self.validation if len(y) >= FEW else 0.0,
                          model=self.model, categorical=self.categorical, numerical=(*self.numerical, *numbers),
                          multi_hot=self.multi_hot, ignore=self.ignore,
                          settings={"train.metric": "log_loss", **(self.settings or {})},
                          prepare_settings=self.prepare_settings, seed=self.seed)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """[rows, 2]: the probabilities of the two classes."""
        check_is_fitted(self, "model_")
        click = self.model_.predict_proba(self._table(X, reset=False)[0])
        return np.stack([1 - click, click], axis=1)

    def decision_function(self, X: Any) -> np.ndarray:
        """The logit of the second class, [rows]."""
        check_is_fitted(self, "model_")
        return self.model_.predict_logit(self._table(X, reset=False)[0]).astype(np.float64)

    def predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "model_")
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    def _table(self, X: Any, *, reset: bool) -> tuple[pa.Table, list[str]]:
        """X as a table, and the columns that are numbers since X is a matrix."""
        if not issparse(X) and (isinstance(X, (pa.Table, Mapping)) or hasattr(X, "columns")):
            table = as_table(X)
            validate_data(self, X if hasattr(X, "shape") else table, reset=reset, skip_check_array=True)
            return table, []
        X = validate_data(self, X, reset=reset, dtype="numeric")
        names = [f"x{index}" for index in range(X.shape[1])]
        return pa.table({name: np.ascontiguousarray(X[:, index]) for index, name in enumerate(names)}), names

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:  # its files travel with it
            folder = self.model_.folder
            state["model_"] = {path.relative_to(folder).as_posix(): path.read_bytes()
                               for path in sorted(folder.rglob("*")) if path.is_file()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("model_", None)
        super().__setstate__(state)
        if files is not None:
            temporary = tempfile.TemporaryDirectory(prefix="clickwise-")
            for name, content in files.items():
                path = Path(temporary.name) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.model_ = Model(temporary.name)
            self.model_._temporary = temporary
