"""A folder of runs stands for its latest run."""

from __future__ import annotations

import re
from pathlib import Path

from clickwise.progress import say

RUN_TIME = re.compile(r"(\d{8}-\d{6})(?:-(\d+))?")  # the name of a run folder, as `clickwise train` gives it


def latest_run(folder: Path) -> Path:
    """`runs/<dataset>-<model>` becomes the latest run in it, which is reported; any other path is returned as it is.

    20261127-093000, 20261127-093000-2, 20261127-093000-10: the last of these is the latest.
    """
    if (folder / "recipe.yaml").exists() or not folder.is_dir():
        return folder
    runs = [(name[1], int(name[2] or 1), path) for path in folder.iterdir()
            if (name := RUN_TIME.fullmatch(path.name)) and (path / "recipe.yaml").exists()]
    if not runs:
        return folder
    latest = max(runs)[2]
    say(f"the latest run of {folder}: {latest.name}")
    return latest
