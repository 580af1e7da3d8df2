"""`clickwise quickstart`: real data that comes with the package, prepared, trained and reported."""

from __future__ import annotations

import sys
from pathlib import Path

from clickwise.recipe import load
from clickwise.verbs.train import train


def quickstart(*, folder: Path, overrides: list[str] = ()) -> Path:
    """The run folder of `kuairand/dlrm`, trained on the shipped part of KuaiRand; all files go below `folder`."""
    from clickwise import prepare

    data = folder / "data" / "kuairand"
    print("1/2  preparing KuaiRand (shipped sample, CC BY-SA 4.0)", file=sys.stderr)
    prepare.run({**load("kuairand/prepare"), "out": str(data)}, where="kuairand/prepare")
    print("2/2  training DLRM", file=sys.stderr)
    return train("kuairand/dlrm", [f"data.path={data}", *overrides], out=folder / "runs")
