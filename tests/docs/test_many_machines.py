"""docs/many_machines.md, as it stands there: its plans are what the command prints, its scripts set what is needed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from clickwise.memory_limits import shown
from clickwise.recipe import shipped_recipes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
PLANS = re.findall(r"```sh\n(clickwise plan [^\n]*)\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
(SBATCH,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", PAGE, re.DOTALL)
(MANIFESTS,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
VARIABLES = {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"}


def test_the_page_has_all_its_plans():
    assert len(PLANS) == 2 == PAGE.count("```text")


@pytest.mark.parametrize("command", [command for command, _ in PLANS])
def test_a_plan_is_what_the_command_prints(clickwise, command):
    result = clickwise(*shlex.split(command)[1:])
    told = dict(PLANS)[command]
    assert not result.err and "table " in result.out and told.strip()
    assert result.out == told if "fits: " in told else result.out.endswith(told)
    assert result.code == (0 if "fits: " in told else 1)


CELLS = [("t15", 1), ("t15", 8), ("t15", 16), ("t3", 1), ("t3", 8), ("t3", 16), ("t0", 1), ("t0", 8), ("t0", 16)]


def row_of(clickwise, tables: str, cards: int) -> str:
    """The line of the page's table, from what the command says."""
    cells = [tables.upper(), str(cards)]
    for recipe in ("dlrm_large", "dcnv2_large"):
        found = json.loads(clickwise("plan", f"criteo/{recipe}", "--gpus", cards, "--cardinalities",
                                     f"criteo_{tables}", "--json").out)
        cells.append(shown(found["largest_bytes"]) + ("" if found["largest_bytes"] <= 80e9 else ": does not fit"))
        cells.append("; ".join(shown(each["bytes"]) for each in found["exchange"]) or "nothing")
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize(("tables", "cards"), CELLS)
def test_cards_of_80_gb(clickwise, tables, cards):
    assert row_of(clickwise, tables, cards) in PAGE.splitlines()


def test_the_plans_that_stand_there_are_all(clickwise):
    assert len(re.findall(r"^\| T\d+ \|", PAGE, re.MULTILINE)) == len(CELLS)
    assert not [line for line in PAGE.splitlines() if "clickwise plan" in line and line not in dict(PLANS)
                and not line.startswith("`clickwise plan`")]


def test_recipes_that_are_started_are_shipped():
    named = set(re.findall(r"\bclickwise (?:train )?([a-z]+/[a-z_0-9]+)", PAGE))
    assert named == {"criteo/dlrm_large", "kuairand/dlrm"} and named <= {*shipped_recipes()}


def test_keys_are_those_of_the_section():
    from clickwise.embedding.placement import Sharding

    sharding = yaml.safe_load("{" + ", ".join(re.findall(r"^\| `(\w+: \w+)` \|", PAGE, re.MULTILINE)).replace(
        "by: rows, by: tables", "by: rows") + "}")
    assert Sharding(**sharding) == Sharding() and len(sharding) == 3


# ---------------------------------------------------------------------------------------------------- SLURM, Kubernetes

SRUN = """#!/bin/bash
# What srun does, one task after the other: two nodes with two tasks each.
[ "$1" = --kill-on-bad-exit=1 ] && shift || exit 9
for task in 0 1 2 3; do SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) "$@" || exit 1; done
"""
SCONTROL = """#!/bin/bash
[ "$*" = "show hostnames node[7-8]" ] && printf 'node7\\nnode8\\n'
"""
CLICKWISE = """#!/bin/bash
echo "$RANK of $WORLD_SIZE, $LOCAL_RANK, $MASTER_ADDR:$MASTER_PORT: $*"
"""


def test_the_slurm_script_tells_every_process_who_it_is(tmp_path):
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash")
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("clickwise", CLICKWISE), ("job.sbatch", SBATCH)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{Path(bash).parent}:/usr/bin:/bin", "SLURM_JOB_ID": "123",
                   "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NTASKS": "4"}
    done = subprocess.run([bash, tmp_path / "job.sbatch"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines() == [
        f"{task} of 4, {task % 2}, node7:20123: train criteo/dlrm_large --out /shared/runs" for task in range(4)], done


def test_the_job_tells_every_pod_who_it_is(clickwise):
    service, job = yaml.safe_load_all(MANIFESTS)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told.keys() == VARIABLES and told["WORLD_SIZE"] == str(spec["completions"]) == str(spec["parallelism"])
    assert spec["completionMode"] == "Indexed" and pod["restartPolicy"] == "Never"
    assert told["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert service["metadata"]["name"] == pod["subdomain"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (rank,) = [each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"] if each["name"] == "RANK"]
    assert rank == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["args"][:2] == ["train", "criteo/dlrm_large"]


def test_the_page_names_the_variables():
    assert set(re.findall(r"`([A-Z_]+)`", PAGE.partition("### SLURM")[0])) - {"OMP_NUM_THREADS"} == VARIABLES
