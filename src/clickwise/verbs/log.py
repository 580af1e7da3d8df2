"""`clickwise log`: the log of runs in TensorBoard, MLflow or a sink of your own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clickwise.progress import say
from clickwise.report.sinks import Sending

EVERY_S = 5.0


def log(runs: Sequence[Path], to: str, target: str, *, follow: bool = False,
        wait: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """How many points of each run were new; with `follow` it ends once all runs are finished.

    Raises RecipeError for a sink that is none, EngineError for a package that is missing, DataError for a run that is
    damaged, ClickwiseError for a target that cannot be written.
    """
    with contextlib.ExitStack() as stack:
        sent = dict.fromkeys(runs, 0)
        going = {}
        for run in sent:
            going[run] = Sending(run, to, target)
            stack.callback(going[run].close)
        if follow:
            say(f"follows {len(going)} run{'s' if len(going) > 1 else ''} until finished; Ctrl-C ends it")
        while True:
            for run, sending in list(going.items()):
                new, finished = sending.send()
                sent[run] += new
                if finished:
                    del going[run]
            if not follow or not going:
                break
            wait(EVERY_S)
    return {"to": to, "target": target, "points": {str(run): count for run, count in sent.items()},
            "finished": not going}
