"""Processors whose memory lies in several places (NUMA nodes), and how to keep processes beside their memory there."""

from __future__ import annotations

import os
from pathlib import Path

from clickwise.progress import say

NODES = Path("/sys/devices/system/node")


def numa_nodes() -> dict[int, list[int]]:
    """Node -> its cores that this process may use, of nodes with at least one; {} where Linux does not tell."""
    found = {}
    for folder in NODES.glob("node[0-9]*"):
        try:
            cores = _cores((folder / "cpulist").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if usable := sorted(cores & os.sched_getaffinity(0)):
            found[int(folder.name.removeprefix("node"))] = usable
    return dict(sorted(found.items()))


def _cores(text: str) -> set[int]:
    """0-3,8 are 0, 1, 2, 3 and 8."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def described(nodes: dict[int, list[int]]) -> str:
    return f"{len(nodes)} NUMA node{'s' if len(nodes) > 1 else ''}" + (
        ": " + ", ".join(f"{node} with {len(cores)} cores" for node, cores in nodes.items()) if len(nodes) > 1 else "")


def advice(nodes: dict[int, list[int]], gpus: int) -> list[str]:
    """How to pin processes, in commands, with the words that nobody has measured it; [] where there is one node."""
    if len(nodes) < 2:
        return []
    first, count = next(iter(nodes)), len(nodes)
    lines = [f"{described(nodes)}; a process is slower with memory of another node than its own. How much pinning "
             "gains has not been measured with clickwise",
             f"one process that fits into one node: numactl --cpunodebind={first} --membind={first} clickwise train …; "
             "one with tables larger than a node's memory: numactl --interleave=all clickwise train …"]
    if gpus:
        lines.append(f"a process a GPU, each beside its own: torchrun --nproc-per-node {gpus} --numa-binding=node "
                     "-m clickwise train …")
    node = f"$((LOCAL_RANK % {count}))" if list(nodes) == [*range(count)] else \
        f"$(set -- {' '.join(map(str, nodes))}; shift $((LOCAL_RANK % {count})); echo $1)"
    lines.append(f"a process a node on CPUs: OMP_NUM_THREADS={min(map(len, nodes.values()))} torchrun --nproc-per-node "
                 f"{count} --no-python sh -c 'NODE={node}; exec numactl --cpunodebind=$NODE --membind=$NODE "
                 "clickwise train …'")
    return lines


def tell_of_nodes() -> None:
    """Where several processes start on a machine of several nodes, that they can be pinned."""
    nodes = numa_nodes()
    if len(nodes) > 1:
        say(f"{described(nodes)}: these processes are not pinned to any; clickwise doctor says how to")
