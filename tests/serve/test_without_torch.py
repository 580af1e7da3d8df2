"""A virtual environment with what `docker/serve-requirements.txt` names, and nothing else, serves an export."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import re
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement

import clickwise as cw

ROOT = Path(__file__).parents[2]


def packages(names):
    """These and all that they require, as they are installed here."""
    found = {}
    while names:
        name = names.pop()
        if name.lower() not in found:
            try:
                found[name.lower()] = metadata.distribution(name)
            except metadata.PackageNotFoundError:  # for another system
                continue
            for text in found[name.lower()].requires or ():
                required = Requirement(text)
                if required.marker is None or required.marker.evaluate({"extra": ""}):
                    names.append(required.name)
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Its Python; packages are links to those that are installed here, as no network is needed for."""
    folder = tmp_path_factory.mktemp("venv") / "env"
    venv.create(folder, symlinks=True)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    lines = (ROOT / "docker" / "serve-requirements.txt").read_text().splitlines()
    for name, package in packages([line for line in lines if line and not line.startswith("#")]).items():
        assert name not in ("torch", "duckdb", "ibis-framework")
        for top in {file.parts[0] for file in package.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(package.locate_file(top))
    (site / "clickwise.pth").write_text(str(ROOT / "src"))
    return folder / "bin" / "python"


def test_it_serves(python, tmp_path):
    done = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in done.stderr
    data = pd.DataFrame({"town": ["Oslo", "Bonn", "Rome", "Oslo"] * 60, "click": [1, 0, 0, 1] * 60})
    model = cw.fit(data, label="click", settings={"train.epochs": 1, "train.batch_size": 64, "model.top_mlp": [8]})
    exported = model.export(tmp_path / "m", name="m")
    process = subprocess.Popen([python, "-m", "clickwise", "serve", exported, "--port", "0", "--no-access-log"],
                               stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        (address,) = re.findall(r"http://\S+", process.stdout.readline())
        towns = ["Oslo", "Rome", None]
        body = json.dumps({"inputs": [{"name": "town", "datatype": "BYTES", "shape": [3], "data": towns}]})
        with urllib.request.urlopen(f"{address}/v2/models/m/infer", body.encode()) as answer:
            found = json.load(answer)["outputs"][0]["data"]
        assert found == pytest.approx(model.predict_proba(pd.DataFrame({"town": towns})), abs=1e-6)
        modules = Path(f"/proc/{process.pid}/maps").read_text() if sys.platform == "linux" else ""
        assert "torch" not in modules and "duckdb" not in modules
    finally:
        process.terminate()
        assert process.wait() == 143
