"""Machines with several NUMA nodes: what `doctor` and the start of several processes say of them."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from clickwise.verbs import numa
from clickwise.verbs.doctor import doctor


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine of nodes, as Linux tells of them."""
    def made(cores, **nodes):
        for name, text in nodes.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "cpulist").write_text(text + "\n")
        (tmp_path / "possible").write_text("0-7")
        monkeypatch.setattr(numa, "NODES", tmp_path)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(cores), raising=False)
    return made


def test_nodes_with_the_cores_that_may_be_used(machine):
    machine(range(1, 40), node0="0-3,16-19", node1="8", node10="", node2="4-6")
    assert numa.numa_nodes() == {0: [1, 2, 3, 16, 17, 18, 19], 1: [8], 2: [4, 5, 6]}


def test_one_node_needs_no_advice(machine):
    machine(range(4), node0="0-3", node1="4-7")
    found = doctor()
    assert found["devices"]["memory"] == "1 NUMA node" and not any("numactl" in note for note in found["notes"])


def test_a_system_that_does_not_tell(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(numa, "NODES", tmp_path / "nowhere")
    assert numa.numa_nodes() == {} and "memory" not in doctor()["devices"]


def test_doctor_gives_the_commands(machine, clickwise):
    machine(range(8), node0="0-3", node1="4-7")
    found = doctor()
    assert found["devices"]["memory"] == "2 NUMA nodes: 0 with 4 cores, 1 with 4 cores" and not found["problems"]
    notes = "\n".join(found["notes"])
    assert "numactl --cpunodebind=0 --membind=0 clickwise train" in notes and "--interleave=all" in notes
    assert "has not been measured" in notes and "--numa-binding" not in notes
    assert "torchrun --nproc-per-node 8 --numa-binding=node" in "\n".join(numa.advice(numa.numa_nodes(), gpus=8))
    result = clickwise("doctor")
    assert result.code == 0 and "2 NUMA nodes" in result.out


@pytest.mark.parametrize(("nodes", "ranks"), [({"node0": "0", "node1": "1", "node2": "2"}, "0 1 2 0 1"),
                                              ({"node0": "0", "node4": "1"}, "0 4 0 4 0")])
def test_each_process_has_its_node(machine, nodes, ranks):
    machine(range(8), **nodes)
    *_, command = numa.advice(numa.numa_nodes(), gpus=0)
    script = shlex.split(command.partition("--no-python ")[2])[2].partition("; exec")[0]
    found = [subprocess.run(["sh", "-c", f"{script}; echo $NODE"], env={**os.environ, "LOCAL_RANK": str(rank)},
                            capture_output=True, text=True, check=True).stdout.strip() for rank in range(5)]
    assert " ".join(found) == ranks


def test_several_processes_are_told_that_they_are_not_pinned(machine, clickwise, monkeypatch):
    machine(range(8), node0="0-3", node1="4-7")
    monkeypatch.setattr("clickwise.launch.launch", lambda processes: 0)
    result = clickwise("train", "tiny/dlrm", "--processes", 2)
    assert result.code == 0 and "2 NUMA nodes" in result.err and "clickwise doctor says how to" in result.err
