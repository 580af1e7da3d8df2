"""CTRClassifier keeps scikit-learn's contract, and takes frames as they are."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from clickwise import CTRClassifier

SMALL = {"train.epochs": 2, "model.embedding_dim": 4, "model.bottom_mlp": [8], "model.top_mlp": [8],
         "model.cross_rank": 4}
# Sums of float32 in batches of other sizes differ in the last bits; asked is 1e-7.
LEFT_OUT = {"check_methods_subset_invariance": "float32: scores of other batches agree to 1e-6, not to 1e-7"}


def frame(rows=240, seed=0):
    dice = random.Random(seed)
    data = pd.DataFrame({"town": [dice.choice(["Oslo", "Bonn", None]) for _ in range(rows)],
                         "age": [dice.randrange(18, 60) for _ in range(rows)]})
    click = ["yes" if dice.random() < (0.9 if town == "Oslo" else 0.1) else "no" for town in data.town]
    return data, np.array(click)


def test_frames_pipelines_searches_and_pickles():
    X, y = frame()
    search = GridSearchCV(CTRClassifier(settings=SMALL), {"seed": [0, 1]}, cv=2, scoring="roc_auc").fit(X, y)
    assert search.best_score_ > 0.6 and search.best_estimator_.classes_.tolist() == ["no", "yes"]
    pipeline = make_pipeline(FunctionTransformer(lambda data: data.assign(old=data.age > 40)),
                             clone(search.best_estimator_))
    assert cross_val_score(pipeline, X, y, cv=2, scoring="roc_auc").min() > 0.6
    fitted = search.best_estimator_
    assert fitted.feature_names_in_.tolist() == ["town", "age"] and fitted.n_features_in_ == 2
    probability = fitted.predict_proba(X)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    assert (fitted.predict(X) == np.where(probability[:, 1] > 0.5, "yes", "no")).all()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), probability)
    assert not hasattr(clone(fitted), "model_")


def test_what_is_refused():
    X, y = frame(60)
    for target, words in ((["no"] * 60, "one class"), (["a", "b", "c"] * 20, "3 classes"), (y[:9], "rows")):
        with pytest.raises(ValueError, match=words):
            CTRClassifier(settings=SMALL).fit(X, target)


@pytest.mark.slow
def test_the_contract_of_scikit_learn():
    found = check_estimator(CTRClassifier(settings={"train.epochs": 20}), on_fail=None, on_skip=None,
                            expected_failed_checks=LEFT_OUT)
    wrong = {each["check_name"]: str(each["exception"])[:200] for each in found
             if each["status"] not in ("passed", "skipped", "xfail")}
    assert not wrong and len(found) > 50
