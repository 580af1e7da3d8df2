"""What a process asks of the system: to keep freed memory between steps, huge pages for its tables, and how much memory
it held."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_TRIM_THRESHOLD = -3, -4, -1
_LARGEST_INT = 2**31 - 1
_MADV_HUGEPAGE, _HUGE_PAGE = 14, 2**21
_HEAP = 2**30 - 2**21  # bytes that are to lie in huge pages, less than what is mapped on its own


def keep_freed_memory() -> bool:
    """True where glibc now keeps freed blocks for the next allocation; False (and nothing done) elsewhere.

    A training step on the CPU allocates and frees the same blocks of tens to hundreds of MB every time. By default
    glibc maps each from the system and unmaps it again, and the kernel then zeroes every page of it anew: that alone
    can take longer than the arithmetic (`benchmarks/cpu_step.py` shows how much). What is kept lies in huge pages where
    the kernel has them. The price: the process holds on to its largest working set until it ends. Call it once, early,
    in a process that trains; it cannot be undone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  (other C libraries have a mallopt that does nothing)
    except (OSError, AttributeError):
        return False
    # Older versions of glibc refuse a threshold above 32 MB; forbidding mmap altogether does the same there.
    large = mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_MAX, 0)
    keeps = bool(large and mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
    if keeps:
        _blocks_in_huge_pages()
    return keeps


def _blocks_in_huge_pages() -> None:
    """Has the blocks of later allocations, of `_HEAP` bytes in all, lie in huge pages, where the kernel has some.

    One block as large is taken and given back untouched: addresses, no memory. As freed memory is kept, later blocks
    come out of it.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = (ctypes.c_void_p,), None
    if (address := libc.malloc(_HEAP)) is not None:
        ask_for_huge_pages(address, _HEAP)
        libc.free(address)


def ask_for_huge_pages(address: int, size: int) -> bool:
    """True where the kernel was asked to back `size` bytes at `address` with huge pages; call it before the first use.

    Rows looked up at random miss the processor's table of pages almost every time; with pages of 2 MB instead of
    4 kB that table covers far more rows.
    """
    if not sys.platform.startswith("linux"):
        return False
    first, last = -(-address // _HUGE_PAGE) * _HUGE_PAGE, (address + size) // _HUGE_PAGE * _HUGE_PAGE
    if first >= last:
        return False
    try:
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return False
    return madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_HUGEPAGE) == 0


def peak_bytes() -> int | None:
    """The most memory of the host that this process held; None where the system does not tell."""
    if sys.platform == "linux":  # of this program alone: `ru_maxrss` begins with what the one held that started it
        with contextlib.suppress(OSError, IndexError):
            told = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
            return int(told.split("VmHWM:")[1].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
