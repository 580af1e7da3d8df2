"""`clickwise bench --what inference`: with the loader and without."""

from __future__ import annotations

import json

import pytest

from clickwise.verbs import bench

SMALL = ["data.synthetic.rows={train: 300, validation: 100, test: 250}", "train.batch_size=100", "model.top_mlp=[4]",
         "--what", "inference", "--steps", 6, "--warmup", 1, "--batch-sizes", "1,100"]


@pytest.mark.parametrize("words", [[], ["--with-loading"]], ids=["held in memory", "with loading"])
def test_inference_reads_the_test_mapping(clickwise, monkeypatch, words):
    read, endless = [], bench._endless
    monkeypatch.setattr(bench, "_endless", lambda loader: (read.append(batch) or batch for batch in endless(loader)))
    result = clickwise("bench", "tiny/dlrm", *SMALL, *words, "--json")
    assert result.code == 0, result.err
    figures = json.loads(result.out)
    assert figures["loading"] == ("included" if words else "excluded")
    assert [len(batch) for batch in read] == [1] * (len(read) // 2) + [100] * (len(read) // 2)
    assert len(read) == (14 if words else 12)  # 7 timed or warming up, or 6 held, for each of two sizes
    for row in figures["rows"]:
        assert 0 < row["ms_p50"] <= row["ms_p90"] <= row["ms_p95"] <= row["ms_p99"] and row["samples_per_s"] > 0


def test_refusals(clickwise):
    result = clickwise("bench", "tiny/dlrm", *SMALL, "--what", "train", "--with-loading")
    assert result.code == 2 and "--what inference" in result.err
    result = clickwise("bench", "tiny/dlrm", *SMALL, "--batch-sizes", 251)
    assert result.code == 1 and "only 250 rows" in result.err and "Traceback" not in result.err
