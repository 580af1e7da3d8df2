from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clickwise.errors import DataError
from clickwise.metrics import ReportMaterial
from clickwise.metrics.roc import exact_auc

GENERATOR = torch.Generator().manual_seed(0)
LOGIT = torch.randn(3_000, generator=GENERATOR) - 1
LABEL = torch.rand(3_000, generator=GENERATOR) < LOGIT.sigmoid()
COLUMNS = {"tab": torch.randint(0, 6, (3_000,), generator=GENERATOR, dtype=torch.int8),
           "city": torch.randint(0, 8, (3_000,), generator=GENERATOR, dtype=torch.int32)}
FOLLOW = {"tab": range(4), "city": [0, 2, 1]}


def gathered(start: int = 0, stop: int = 3_000) -> ReportMaterial:
    material = ReportMaterial(FOLLOW)
    for at in range(start, stop, 500):
        rows = slice(at, min(at + 500, stop))
        material.update(LOGIT[rows], LABEL[rows], {name: ids[rows] for name, ids in COLUMNS.items()})
    return material


def test_scores_by_bin():
    arrays = gathered().arrays("test")
    assert arrays["test/rows"].sum() == 3_000 and arrays["test/clicks"].sum() == LABEL.sum().item()
    assert arrays["test/predicted"].sum() == pytest.approx(LOGIT.double().sigmoid().sum().item())
    low, high = arrays["test/edges"][:-1], arrays["test/edges"][1:]
    mean = arrays["test/predicted"] / np.maximum(arrays["test/rows"], 1)
    full = arrays["test/rows"] > 0
    with np.errstate(over="ignore"):
        assert ((1 / (1 + np.exp(-low)) <= mean + 1e-6) & (mean <= 1 / (1 + np.exp(-high)) + 1e-6))[full].all()


def test_slices_are_metrics_of_the_rows_they_name():
    arrays = gathered().arrays("test", names={"tab": {0: "missing", 3: "<b>"}})
    table = {name.rpartition("/")[2]: values for name, values in arrays.items() if "/slices/" in name}
    assert list(zip(table["feature"].tolist(), table["value"].tolist(), strict=True)) == [
        ("tab", "missing"), ("tab", "1"), ("tab", "2"), ("tab", "<b>"), ("tab", "all others"),
        ("city", "0"), ("city", "2"), ("city", "1"), ("city", "all others")]
    masks = [*((COLUMNS["tab"] == id) for id in range(4)), COLUMNS["tab"] > 3,
             *((COLUMNS["city"] == id) for id in FOLLOW["city"]), COLUMNS["city"] > 2]
    for i, mask in enumerate(masks):
        logit, label = LOGIT[mask].double(), LABEL[mask]
        assert table["rows"][i] == mask.sum() and table["clicks"][i] == label.sum()
        assert table["predicted"][i] == pytest.approx(logit.sigmoid().sum().item())
        assert table["loss"][i] == pytest.approx(torch.nn.functional.binary_cross_entropy_with_logits(
            logit, label.double(), reduction="sum").item())
        exact = exact_auc(LOGIT[mask].numpy(), label.numpy())
        assert table["auc"][i] == pytest.approx(exact, abs=2e-3, nan_ok=True)


def test_merged_parts_are_one_pass():
    whole, left, right = gathered().arrays("test"), gathered(0, 1_000), gathered(1_000, 3_000)
    right.merge(left)
    for name, values in right.arrays("test").items():
        if values.dtype.kind in "US":
            assert values.tolist() == whole[name].tolist()
        else:
            np.testing.assert_allclose(values, whole[name], rtol=1e-12)


def test_without_features_and_without_rows(tmp_path):
    arrays = ReportMaterial().arrays("validation")
    assert set(arrays) == {f"validation/{name}" for name in ("edges", "rows", "clicks", "predicted")}
    np.savez_compressed(tmp_path / "scores.npz", **arrays, **gathered().arrays("test"))
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        assert stored["test/slices/value"].dtype.kind == "U" and stored["validation/rows"].sum() == 0
    empty = ReportMaterial(FOLLOW)
    assert len(empty.arrays("test")["test/slices/rows"]) == 0


def test_nan_is_an_error():
    with pytest.raises(DataError, match="NaN"):
        ReportMaterial().update(torch.tensor([math.nan]), torch.tensor([1]))
