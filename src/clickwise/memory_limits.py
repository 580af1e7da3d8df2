"""How much memory this process may have: of the machine, of the control group it runs in (a container), of `ulimit`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from clickwise.errors import ClickwiseError

_NO_LIMIT = 1 << 60  # version 1 says "no limit" by a number of about 2^63


@dataclasses.dataclass(frozen=True)
class Memory:
    """`total` bytes are all that the process may have, `free` of them are; `of` says who sets the bound."""

    total: int
    free: int
    of: str


def memory(root: Path = Path("/")) -> Memory | None:
    """The tightest bound, swap included; None where the system does not tell. `root` is where /proc and /sys are."""
    bounds = [*_of_machine(root), *_of_groups(root), *_of_ulimit(root)]
    return min(bounds, key=lambda bound: bound.total, default=None)


def shown(size: float) -> str:
    """Bytes for a person: 35.2 TB."""
    units = ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:,.0f} {units[0]}" if size >= 100 or units[0] == "bytes" else f"{size:.3g} {units[0]}"


def parse_bytes(text: str) -> int | None:
    """`4GB` -> 4 000 000 000, `4GiB` -> 4 · 2^30; None where the text is no size."""
    units = {"B": 1} | {f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}
    units |= {f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)}
    text = text.strip().upper()
    digits = text.rstrip("BIKMGT")
    unit = text[len(digits):] or "B"
    try:
        return int(float(digits) * units[unit])
    except (ValueError, KeyError, OverflowError):
        return None


def out_of_memory(error: BaseException) -> ClickwiseError | None:
    """What to tell a person where `error` says that there was no more memory, or no more threads; None where it says
    something else. (Each library has words of its own.)"""
    text, kind = str(error), type(error).__name__
    first = (text.splitlines() or [kind])[0]
    if kind == "OutOfMemoryError" and "CUDA" in text:
        return ClickwiseError("memory of the GPU", found=first.split(". ")[0], expected="a smaller model",
                              do="lower train.batch_size or model.embedding_dim")
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return ClickwiseError("threads", found="no further thread could be started",
                              expected="room for them: `ulimit -u`, or the limit of processes of the container",
                              do="set train.threads=1 data.prefetch=0, engine.threads=1 in preparation, or raise the "
                                 "limit")
    words = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc", "bad allocation",
             "Storage size calculation overflowed", "array is too big", "Maximum allowed dimension exceeded")
    if isinstance(error, MemoryError) or kind in ("OutOfMemoryException", "OutOfMemoryError") or \
            (isinstance(error, (RuntimeError, OSError, ValueError)) and any(word in text for word in words)):
        has = memory()
        return ClickwiseError("memory", found=first[:200] or kind,
                              expected=f"no more than {shown(has.total)}, {has.of}" if has else "what this machine has",
                              do="lower train.batch_size, train.evaluation_batch_size or data.window_rows, make tables "
                                 "smaller (embedding.hash_indices=true embedding.max_table_size=N), or use fewer rows; "
                                 "in preparation lower engine.memory_limit")
    return None


def _of_machine(root: Path) -> Iterator[Memory]:
    facts = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree"):
                facts[name] = int(value.split()[0]) * 1024
    if "MemTotal" in facts:
        total = facts["MemTotal"] + facts.get("SwapTotal", 0)
        yield Memory(total, facts.get("MemAvailable", total) + facts.get("SwapFree", 0), "the memory of this machine")


def _of_groups(root: Path) -> Iterator[Memory]:
    """Of the group and of all around it, in both versions of control groups."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3 or (parts[1] and "memory" not in parts[1].split(",")):
            continue
        folders = ("sys/fs/cgroup/memory",) if parts[1] else ("sys/fs/cgroup", "sys/fs/cgroup/unified")
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file") if parts[1] else \
            ("memory.max", "memory.current", "inactive_file")
        for top in (root / folder for folder in folders):
            group = top / parts[2].lstrip("/")
            for folder in dict.fromkeys([*(part for part in (group, *group.parents) if part.is_relative_to(top)), top]):
                limit = _number(folder / files[0])
                if limit is not None and limit < _NO_LIMIT:
                    used = _number(folder / files[1]) or 0
                    swap = 0 if parts[1] else _number(folder / "memory.swap.max") or 0
                    yield Memory(limit + (swap if swap < _NO_LIMIT else 0),
                                 max(0, limit - used + _statistic(folder / "memory.stat", files[2])),
                                 "the limit of the control group (the container)")


def _number(file: Path) -> int | None:
    """What a file with one number holds; None for `max` and where there is no such file."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _statistic(file: Path, name: str) -> int:
    """One of the lines of memory.stat: what the system gives back at need counts as free."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.split(" ")[0] == name:
                return int(line.split(" ")[1])
    return 0


def _of_ulimit(root: Path) -> Iterator[Memory]:
    if sys.platform.startswith("linux"):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if 0 <= limit < _NO_LIMIT:
            used = 0
            with contextlib.suppress(OSError, ValueError, IndexError):
                used = int((root / "proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
            yield Memory(limit, max(0, limit - used), "the limit of `ulimit -v`")
