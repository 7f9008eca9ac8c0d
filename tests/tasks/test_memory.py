"""Freed memory stays in the process, as the system's own count of page faults tells."""

import os
import platform
import subprocess
import sys

import pytest

from ssl_ebm.tasks import memory

BLOCKS, SIZE = 20, 64 << 20  # bytes; glibc's own threshold goes up to 32 MiB
PROGRAM = f"""
import ctypes, resource, runpy
keep_freed_memory = runpy.run_path({memory.__file__!r})["keep_freed_memory"]  # alone: the package loads torch
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
done = keep_freed_memory()
for block in range({BLOCKS} + 1):
    if block == 1:  # the first takes its pages from the system in any case
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = libc.malloc({SIZE})
    ctypes.memset(place, 1, {SIZE})
    libc.free(place)
print(int(done), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of taking, filling and freeing a block again and again."""
    clean = {name: value for name, value in os.environ.items() if name not in memory.SETTINGS}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    done, count = map(int, result.stdout.split())
    return bool(done), count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_a_freed_block_is_taken_again_without_page_faults() -> None:
    kept, few = faults()
    left, many = faults(MALLOC_MMAP_THRESHOLD_=str(1 << 20))  # the user's own choice: blocks go back
    assert (kept, left) == (True, False)
    assert few < 100
    assert many >= 10 * max(few, 1)
