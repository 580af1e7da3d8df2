"""`clickwise doctor`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import platform
import re
import shutil
from typing import Any

import clickwise
from clickwise.machine import INSTALL_TORCH, NEWEST_TORCH, OLDEST_TORCH, version_of
from clickwise.verbs.numa import advice, described, numa_nodes

NEEDED = {"torch": "training", "numpy": "everything", "pyarrow": "reading Parquet and CSV", "PyYAML": "recipes",
          "typer": "the command line", "rich": "progress bars"}
OPTIONAL = {"ibis-framework": ("preparation of raw logs", "pip install 'ibis-framework[duckdb]'"),
            "duckdb": ("preparation of raw logs", "pip install 'ibis-framework[duckdb]'"),
            "triton": ("fused kernels on a GPU", "comes with torch for CUDA on Linux"),
            "scikit-learn": ("the tests", "pip install 'clickwise[test]'")}


def doctor() -> dict[str, Any]:
    """Versions of packages, devices, embedding engines, free disk; `problems`, texts about what cannot work at all
    (empty where all is well), and `notes` about what is not there but not needed by everyone."""
    packages, problems, notes = {}, [], []
    for name in NEEDED:
        packages[name] = version_of(name)
        if packages[name] is None:
            problems.append(f"{name} is missing ({NEEDED[name]}): pip install {name}")
    for name, (purpose, how) in OPTIONAL.items():
        packages[name] = version_of(name)
        if packages[name] is None:
            notes.append(f"{name} is missing, needed for {purpose}: {how}")
    notes += _torch_that_is_not_tested(packages["torch"])
    devices, engines = _devices(problems, notes)
    free = shutil.disk_usage(".").free
    if free < 1 << 30:
        problems.append(f"only {free / 1e6:.0f} MB are free on the disk of the working folder")
    return {"clickwise": clickwise.__version__, "python": platform.python_version(), "system": platform.platform(),
            "packages": packages, "devices": devices, "engines": engines, "free_disk_bytes": free, "notes": notes,
            "problems": problems}


def _torch_that_is_not_tested(version: str | None) -> list[str]:
    """A text where this torch is older or newer than those that clickwise is tested with, else none."""
    found = tuple(int(number) for number in re.findall(r"\d+", version or "")[:2])
    oldest, newest = (tuple(map(int, bound.split("."))) for bound in (OLDEST_TORCH, NEWEST_TORCH))
    if not found or oldest <= found <= newest:
        return []
    text = f"clickwise is tested with torch {OLDEST_TORCH} to {NEWEST_TORCH}; torch {version} is "
    if found < oldest:
        return [f"{text}older, and what is missing in it may stop a run: {INSTALL_TORCH}"]
    return [f"{text}newer. It is used all the same; should something fail or look wrong: {INSTALL_TORCH}"]


def _devices(problems: list[str], notes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The devices and the embedding engines that run here; both empty where torch cannot be loaded."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of torch's libraries does not load
        if version_of("torch") is not None:
            problems.append(f"torch is installed but cannot be loaded ({error}): pip install --force-reinstall torch")
        return {}, []
    from clickwise.kernels.cpu_products import bf16_instructions
    from clickwise.registry import NAMES

    cpu = torch.backends.cpu.get_cpu_capability()
    bf16 = {"AMX": "AMX: fastest", "AVX512-BF16": "AVX512-BF16: faster than fp32"}.get(
        bf16_instructions(), f"emulated on {cpu}: use fp32")
    nodes = numa_nodes()
    devices: dict[str, Any] = {"cpu": f"{cpu}, {torch.get_num_threads()} threads", "bf16_on_cpu": bf16,
                               **({"memory": described(nodes)} if nodes else {})}
    notes += advice(nodes, torch.cuda.device_count() if torch.cuda.is_available() else 0)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.version.cuda and not torch.cuda.is_available():
        notes.append(f"torch is built for CUDA {torch.version.cuda} but sees no GPU: training runs on the CPU; "
                     "if there is a GPU, check its driver (nvidia-smi)")
    runs_triton = torch.cuda.is_available() and version_of("triton") is not None
    return devices, [name for name in NAMES["engine"] if name != "fused" or runs_triton]
