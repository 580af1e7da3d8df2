"""Whether another commit gives the same bits: hashes of prepared files, final weights and metrics.

    python benchmarks/same_bits.py > before.txt                   one line each: what, sha256
    python benchmarks/same_bits.py --source DIR/src > after.txt   of the code in another checkout
    diff before.txt after.txt

Prepared are all five datasets: KuaiRand and Adult as shipped, Criteo, Outbrain and Amazon Books from raw logs made
for it. Trained are every tiny/ and kuairand/ recipe, the latter for a few steps, with one thread. What tells of the
time, the machine or a path is no part of a hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PREPARATIONS = {
    "criteo": ("criteo/prepare", "dataset.train=[raw/criteo/day_*]", "dataset.frequency_limit=3"),
    "outbrain": ("outbrain/prepare", "dataset.folder=raw/outbrain"),
    "outbrain multihot": ("outbrain/prepare_multihot", "dataset.folder=raw/outbrain"),
    "outbrain profiles": ("outbrain/prepare_profiles", "dataset.folder=raw/outbrain"),
    "amazon_books": ("amazon_books/prepare", "dataset.reviews=[raw/amazon/reviews_Books.json]",
                     "dataset.metadata=[raw/amazon/meta_Books.json]"),
    "kuairand": ("kuairand/prepare",),
    "kuairand nightly": ("kuairand/prepare", "dataset.count_until=earlier_days"),
    "kuairand history": ("kuairand/prepare_history",),
    "table": ("table/prepare", "dataset.spec=adult", "dataset.label_is='>50K'"),
}
RAW = (("synth", "criteo_raw", "--rows", "20000", "--out", "raw/criteo"),
       ("synth", "outbrain_raw", "--rows", "20000", "--out", "raw/outbrain"),
       ("synth", "amazon_raw", "--users", "300", "--out", "raw/amazon"),
       ("spec", "infer", str(ROOT / "data/adult/adult.csv.gz"), "--label", "income", "--out", "adult"))
MODELS = ("dlrm", "dcnv2", "wide_deep", "din", "dien", "sim")
WITH_HISTORY = ("din", "dien", "sim")
NO_CONTENT = {"preparation/summary.json", "preparation/recipe.yaml", "manifest.json"}  # paths, seconds, and their sums


def sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def of_weights(run: Path) -> str:
    weights = torch.load(run / "checkpoint/last.pt", weights_only=True)["model"]
    return sha256(*(part for name, tensor in sorted(weights.items())
                    for part in (name.encode(), tensor.contiguous().view(torch.uint8).numpy().tobytes())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="the folder of the package `clickwise`")
    options = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": str(options.source.resolve()), "OMP_NUM_THREADS": "1"}

    with tempfile.TemporaryDirectory() as folder:
        def clickwise(*words: str) -> str:
            return subprocess.run([sys.executable, "-m", "clickwise.cli", *words], cwd=folder, env=environment,
                                  check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout

        for words in RAW:
            clickwise(*words)
        for name, words in PREPARATIONS.items():
            out = Path(folder, "prepared", name.replace(" ", "_"))
            clickwise("prepare", *words, f"out={out}")
            files = sorted(file for file in out.rglob("*") if file.is_file())
            print(f"prepared {name}", sha256(*(part for file in files if str(file.relative_to(out)) not in NO_CONTENT
                                               for part in (str(file.relative_to(out)).encode(), file.read_bytes()))),
                  flush=True)
        for kind in ("tiny", "kuairand"):
            for model in MODELS:
                words = [f"{kind}/{model}", "train.threads=1"]
                if kind == "kuairand":
                    data = "kuairand_history" if model in WITH_HISTORY else "kuairand"
                    words += [f"data.path={folder}/prepared/{data}", "train.steps=60"]
                clickwise("train", *words, "--out", f"{folder}/runs/{kind}-{model}")
                run, = Path(folder, "runs", f"{kind}-{model}").glob("*-*/*/")
                metrics = json.loads((run / "metrics.json").read_text())["mappings"]
                print(f"trained {kind}/{model}: weights", of_weights(run), flush=True)
                print(f"trained {kind}/{model}: metrics", sha256(json.dumps(metrics, sort_keys=True).encode()),
                      flush=True)


if __name__ == "__main__":
    main()
