"""`clickwise quickstart`: real data that comes with the package, prepared, trained and reported."""

from __future__ import annotations

from pathlib import Path

from clickwise.progress import say
from clickwise.recipe import load
from clickwise.verbs.train import train


def quickstart(*, folder: Path, overrides: list[str] = ()) -> Path:
    """The run folder of `kuairand/dlrm`, trained on the shipped part of KuaiRand; all files go below `folder`."""
    from clickwise import prepare

    data = folder / "data" / "kuairand"
    say("1/2  preparing KuaiRand (shipped sample, CC BY-SA 4.0)")
    prepare.run({**load("kuairand/prepare"), "out": str(data)}, where="kuairand/prepare")
    say("2/2  training DLRM")
    return train("kuairand/dlrm", [f"data.path={data}", *overrides], out=folder / "runs")
