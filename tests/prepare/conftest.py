from __future__ import annotations

from pathlib import Path

import pytest
from criteo_rows import write_raw

from clickwise.prepare import run


@pytest.fixture
def criteo(tmp_path):
    """`criteo(train=[...lines], test=[...lines], name="out", engine={}, **options)` -> the prepared folder."""
    def prepare(train, test=None, *, name="out", engine=None, overwrite=False, **options) -> Path:
        files = {"train": train, "test": test}
        for key, lines in files.items():
            if lines and "\t" in lines[0]:
                files[key] = [write_raw(tmp_path / f"{name}_{key}.tsv", lines)]
        section = {"name": "criteo", "frequency_limit": 1, **{k: v for k, v in files.items() if v}, **options}
        recipe = {"dataset": section, "engine": {"threads": 1, **(engine or {})}, "out": str(tmp_path / name)}
        return run(recipe, "test.yaml", overwrite=overwrite)

    return prepare
