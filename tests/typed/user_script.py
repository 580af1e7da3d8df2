"""What a user may write: tests/test_typed.py holds it against mypy --strict."""

from pathlib import Path

import numpy as np

import clickwise as cw


def fit_and_score(file: Path, new: Path) -> float:
    model: cw.Model = cw.fit(file, label="click", time="ts", display="session", settings={"train.epochs": 2})
    probability = model.predict_proba(new)
    auc = cw.metrics.auc(np.zeros(len(probability)), probability)
    kept = model.save("model")
    again = cw.load(kept)
    for name, column in again.columns.items():
        print(name, column["why"])
    print((again.baselines["constant"]["log_loss"] or 0.0) + 1, *again.warnings)
    return auc + again.evaluate(new)["auc"] + (again.metrics["validation"]["auc"] or 0.5)


def by_recipe() -> Path:
    columns = cw.prepare_recipe("kuairand/prepare", {"out": "columns"})
    return cw.fit_recipe("kuairand/dlrm", {"data.path": str(columns)}, out="runs")


def in_memory() -> float:
    spec = cw.FeatureSpec.of(numerical=["age"], cardinalities={"town": 3})
    model, step = cw.build("dlrm", spec, {"model.embedding_dim": 4})
    config: cw.DLRMConfig = cw.DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4))
    schedule = cw.Schedule(warmup_steps=10)
    print(type(model).__name__, step.steps, config, schedule, cw.DenseOptimizer(name="sgd", lr=0.1))
    displays, values = cw.metrics.by_display([0, 1], [0.2, 0.4], ["a", "a"], "ndcg_at_5")
    return float(values.mean()) + len(displays)


def classify(frame: dict[str, list[float]], clicks: list[int]) -> float:
    classifier = cw.CTRClassifier("dcnv2", settings={"train.epochs": 1}).fit(frame, clicks)
    return float(classifier.predict_proba(frame)[0, 1])


def check(recipe: cw.Recipe, session: cw.Session) -> str:
    return f"{recipe.model_name} {session!r} {cw.measure([0, 1], [0.1, 0.2])['auc']}"
