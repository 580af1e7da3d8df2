"""Prepare and predict where the disk fills up, may only be read, or refuses: one message, nothing half-written, and
the same command again does it once there is room."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import functools
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.children import Said, command, in_children
from faults.interrupt import at_operation, operations
from faults.killed import CASES, dataset, difference

LARGE = 1 << 27
MS_REMOUNT, MS_READ_ONLY, MS_PRIVATE, MS_RECURSIVE = 32, 1, 1 << 18, 1 << 14
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


@dataclasses.dataclass(frozen=True)
class Limit:
    """How much the disk takes: a file system of `size` bytes, files of at most `file_size`, or an error `number` at the
    operation `at` on files; `read_only`: nothing."""

    case: str
    folder: Path  # with `good`, what is read, and `whole`, what comes out without a limit
    size: int = LARGE
    file_size: int = resource.RLIM_INFINITY
    at: int = 0
    number: int = 0
    read_only: bool = False


def _predict(ending: str, folder: Path) -> Said:
    run = (folder / "runs" / "latest").resolve()
    return command("predict", run, "--input", folder / "many.csv", "--carry", "note", "--out",
                   folder / f"disk/scores{ending}")


def _prepare_into(case: str, folder: Path) -> Said:
    """The case's command, with its output on the small disk."""
    found = folder / "disk/case"
    if not found.exists():
        shutil.copytree(folder / "good", found)
    return CASES[case].run(found)


def small_disk(folder: Path, size: int, flags: int = 0) -> None:
    """Mounts a file system of `size` bytes at `folder`, or changes it, for this process alone; raises OSError where
    that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_mounts() -> None:
    """Whatever this process mounts from now on ends with it."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    libc.mount(b"none", b"/", None, MS_PRIVATE | MS_RECURSIVE, None)


def can_mount(folder: Path) -> bool:
    (found,) = in_children(_can_mount, [folder], seconds=120)
    return found is True


def _can_mount(folder: Path) -> bool:
    try:
        own_mounts()
        small_disk(folder, 1 << 20)
    except OSError:
        return False
    return True


def limits(case: str, folder: Path, count: int) -> list[Limit]:
    """`count` sizes of the disk, where this process may mount one, `count` sizes of files, `count` errors at operations
    on files, each all over the run; and a disk that may only be read."""
    dice, (operations_, largest, used) = random.Random(case), took(folder)
    found = [Limit(case, folder, file_size=max(1, int(largest * (index + dice.random()) / count)))
             for index in range(count)]
    found += [Limit(case, folder, at=max(1, round(operations_ * (index + dice.random()) / count)),
                    number=NUMBERS[index % len(NUMBERS)]) for index in range(count)]
    if can_mount(folder / "disk"):
        pages = [max(1, int(1.3 * used * (index + dice.random()) / count / 4096)) for index in range(count)]
        found += [Limit(case, folder, size=4096 * page) for page in pages]
        found.append(Limit(case, folder, read_only=True))
    return found


# ---- what is written to that disk

WORK: dict[str, tuple[Callable[[Path], Said], Callable[[Path], object]]] = {}


def _scores(ending: str, folder: Path) -> object:
    return {"beside": sorted(path.name for path in (folder / "disk").iterdir()),
            "bytes": (folder / f"disk/scores{ending}").read_bytes()}


def _register() -> None:
    for case in CASES:
        if case.startswith("prepare"):
            WORK[case] = functools.partial(_prepare_into, case), lambda folder: dataset(folder / "disk/case")
    for ending in (".parquet", ".csv"):
        WORK[f"predict {ending}"] = functools.partial(_predict, ending), functools.partial(_scores, ending)


_register()


def make(case: str, folder: Path) -> None:
    """Writes `good` and `whole` and tells how many operations on files and bytes that took, in `folder/took`."""
    (found,) = in_children(_make, [(case, folder)], seconds=300)
    assert found is True, found


def _make(what: tuple[str, Path]) -> bool:
    case, folder = what
    good = folder / "good"
    good.mkdir(parents=True)
    if case.startswith("prepare"):
        CASES[case].make(good)
    else:
        from faults.run_kinds import make_run

        make_run(folder)
        header, *rows = (folder / "rows.csv").read_text(encoding="utf-8").split("\n", 1)
        (folder / "many.csv").write_text(header + "\n" + 2000 * rows[0], encoding="utf-8")
    (folder / "disk").mkdir()
    run, result = WORK[case]
    at_operation(0, folder / "disk", lambda: None)
    said = run(folder)
    assert said.code == 0, said
    largest = max(path.stat().st_size for path in (folder / "disk").rglob("*") if path.is_file())
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in (folder / "disk").rglob("*") if path.is_file())
    (folder / "took").write_text(f"{operations()} {largest} {used}")
    (folder / "disk").rename(folder / "whole")
    (folder / "disk").mkdir()
    return True


def took(folder: Path) -> tuple[int, int, int]:
    """Operations on files, bytes of the largest file, bytes of all that stayed."""
    operations_, largest, used = map(int, (folder / "took").read_text().split())
    return operations_, largest, used


def hindered(limits: list[Limit]) -> Iterator[tuple[Limit, bool, str]]:
    """For every limit: whether it hindered, and what was wrong then; empty if nothing."""
    for limit in limits:
        (found,) = in_children(_hindered, [limit], seconds=180)
        yield limit, *(found if isinstance(found, tuple) else (True, repr(found)))


def _hindered(limit: Limit) -> tuple[bool, str]:
    run, result = WORK[limit.case]
    disk = limit.folder / "disk"
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir()
    is_small = limit.size != LARGE or limit.read_only
    if is_small:
        own_mounts()
        small_disk(disk, LARGE)
    before = _seed(limit)
    if is_small:
        size = before + limit.size if limit.size != LARGE else LARGE
        small_disk(disk, size, MS_REMOUNT | (MS_READ_ONLY if limit.read_only else 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit.file_size, resource.RLIM_INFINITY))
    at_operation(limit.at, disk, lambda: fail(limit.number))
    first = run(limit.folder)
    at_operation(0, disk, lambda: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if is_small:
        small_disk(disk, LARGE, MS_REMOUNT)
    try:
        if first.code:
            assert not first.broken and first.code in (1, 2), f"no message: {first.broken[-1500:]} {first.err[-300:]}"
            assert first.err.strip(), "nothing was said"
            _look(limit)
        again = run(limit.folder)
        told = f"{again.broken[-1500:]}{again.err[-500:]}"
        assert again.code == 0, f"the next run failed, after {first.err[-300:]}: {told}"
        disk_now = result(limit.folder)
        disk.rename(limit.folder / "kept") if not is_small else None
    except AssertionError as wrong:
        return bool(first.code), str(wrong)
    shutil.rmtree(limit.folder / "kept", ignore_errors=True)
    return bool(first.code), difference(disk_now, _whole(limit, result))


def _seed(limit: Limit) -> int:
    """Puts what the command reads on the disk, where it stands there; its bytes."""
    if not limit.case.startswith("prepare"):
        return 0
    shutil.copytree(limit.folder / "good", limit.folder / "disk/case")
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in (limit.folder / "disk").rglob("*"))


def _whole(limit: Limit, result: Callable[[Path], object]) -> object:
    aside = limit.folder / "aside"
    aside.mkdir(exist_ok=True)
    if not (aside / "disk").exists():
        (aside / "disk").symlink_to(limit.folder / "whole")
    return result(aside)


def _look(limit: Limit) -> None:
    """Nothing half-written: no output, or a whole one."""
    if limit.case.startswith("prepare"):
        CASES[limit.case].look(limit.folder / "disk/case")
    else:
        left = sorted(path.name for path in (limit.folder / "disk").iterdir())
        assert not left, f"left over: {left}"


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES)
