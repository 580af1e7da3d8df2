import ctypes
import platform
import subprocess
import sys
from pathlib import Path

from clickwise.memory import ask_for_huge_pages, keep_freed_memory

PAGES = """
import resource, sys
if "keep" in sys.argv:
    from clickwise.memory import keep_freed_memory
    assert keep_freed_memory()
for _ in range(20):
    block = bytearray(64 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del block
block = bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_blocks_are_used_again_without_page_faults():
    if platform.libc_ver()[0] != "glibc":
        assert keep_freed_memory() in (True, False)
        return
    faults = {word: int(subprocess.run([sys.executable, "-c", PAGES, word], capture_output=True, text=True,
                                       check=True).stdout) for word in ("plain", "keep")}
    assert faults["keep"] < 100 < faults["plain"]


def test_asking_for_huge_pages_never_harms():
    block = bytearray(b"x" * (5 << 20))
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    assert ask_for_huge_pages(address, len(block)) in (True, False)
    assert not ask_for_huge_pages(address, 4096)  # no whole huge page in it
    assert block == b"x" * (5 << 20)


ADVISED = """
from clickwise.memory import keep_freed_memory
assert keep_freed_memory()
block = bytearray(64 << 20)
areas = open("/proc/self/smaps").read().split("VmFlags:")
print(max(int(area.split("Size:")[1].split()[0]) for area, flags in zip(areas, areas[1:])
          if "[heap]" in area and "hg" in flags.splitlines()[0].split()))
"""


def test_kept_memory_lies_where_the_kernel_was_asked_for_huge_pages():
    if platform.libc_ver()[0] != "glibc" or not Path("/sys/kernel/mm/transparent_hugepage").exists():
        return
    done = subprocess.run([sys.executable, "-c", ADVISED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 64 << 10  # kB
