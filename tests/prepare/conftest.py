from __future__ import annotations

import functools
from pathlib import Path

import pytest
from criteo_rows import write_raw
from outbrain_rows import random_tables, write_tables
from prepared_columns import read

from clickwise.feature_spec import FeatureSpec
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


@pytest.fixture
def outbrain(tmp_path):
    """`outbrain(tables, ...)` writes the raw files (unless `folder` has them): the spec, and columns by mapping."""
    return functools.partial(_prepare_outbrain, tmp_path)


@pytest.fixture(scope="module")
def plain_outbrain(tmp_path_factory):
    """`plain_outbrain(feature_set)`: what `outbrain` gives without any further setting, prepared once for a file."""
    place = tmp_path_factory.mktemp("outbrain")
    return functools.cache(lambda feature_set="v1_spark": _prepare_outbrain(place, name=feature_set,
                                                                            feature_set=feature_set))


def _prepare_outbrain(place: Path, tables=None, *, name="out", folder=None, missing="\\N", feature_set="v1_spark",
                      engine=None, **options):
    if folder is None:
        folder = write_tables(place / f"{name}_raw", tables or random_tables(60, seed=2), missing)
    section = {"name": "outbrain", "folder": str(folder), "feature_set": feature_set, "shuffle": False,
               "frequency_limit": 2, **options}
    engine = {"threads": 1, **(engine or {})}
    out = run({"dataset": section, "engine": engine, "out": str(place / name)}, "test.yaml")
    spec = FeatureSpec.load(out)
    return spec, {mapping: read(out, mapping) for mapping in spec.mappings}
