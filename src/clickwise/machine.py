"""Under which circumstances a number was measured: machine, versions, commit, date."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from clickwise import __version__

PACKAGES = ("clickwise", "torch", "triton", "numpy", "pyarrow", "duckdb", "ibis-framework", "scikit-learn")
OLDEST_TORCH, NEWEST_TORCH = "2.11", "2.13"  # of those that the tests have run with
INSTALL_TORCH = f"pip install 'torch=={NEWEST_TORCH}.*'"
MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def circumstances() -> dict[str, Any]:
    """What a figure needs beside it to be worth something: `date`, `commit`, `machine`, `versions`."""
    return {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": commit(),
            "machine": machine(), "versions": versions()}


def machine() -> dict[str, Any]:
    """Processor, cores, memory, operating system; GPU and torch's threads where torch is loaded already."""
    facts: dict[str, Any] = {"processor": processor(), "cores": usable_cores(), "memory_gib": memory_gib(),
                             "system": platform.platform()}
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return facts


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, family and the instruction sets that decide how fast matrix products are."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = set(facts.get("flags", "").split())
    wide = " ".join(flag for flag in MATRIX_FLAGS if flag in flags)
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family')} model {facts.get('model')}, {wide})"


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def versions() -> dict[str, str]:
    installed = {name: version_of(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {name: found for name, found in installed.items() if found}


def version_of(package: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def code_version() -> str:
    """The version of this package, and a hash of its source: the same where the code is."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return f"{__version__}, source {digest.hexdigest()[:12]}"


def commit() -> str | None:
    """The commit of the checkout that this code runs from, `+changes` behind it where src differs; None in a wheel."""
    source = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(source), *words], capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD").strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
