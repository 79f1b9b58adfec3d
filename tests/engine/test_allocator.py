"""What is freed while loading goes back to the system; what is freed while serving stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from service.engine import allocator

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
HOLES = """
import contextlib, sys
import numpy as np
from service.engine import allocator

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

for _ in range(3):
    np.ones(30 << 20, np.uint8)  # glibc keeps freed memory of this size from now on
with allocator.giving_back() if sys.argv[1] == "giving back" else contextlib.nullcontext():
    before = resident()
    tensors = [np.ones(4 << 20, np.uint8) for _ in range(64)]
    del tensors[::2]
    print(resident() - before)
"""


def mebibytes_left(how: str) -> int:
    """What stays resident of 256 MiB in 64 pieces after every second one was freed."""
    command = [sys.executable, "-c", HOLES, how]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def test_what_is_freed_while_loading_goes_back_at_once() -> None:
    assert mebibytes_left("keeping") > 200
    assert mebibytes_left("giving back") < 150


KEPT = """
import ctypes, resource, threading
from service.engine import allocator
allocator.share_one_arena()
with allocator.giving_back():
    pass
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
faults = []
def allocate():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        address = libc.malloc(200 << 20)
        ctypes.memset(address, 1, 200 << 20)
        libc.free(address)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=allocate)
thread.start()
thread.join()
print(*faults)
"""


def test_a_large_buffer_that_is_freed_while_serving_is_reused_without_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", KEPT], cwd=ROOT, capture_output=True, text=True, check=True)
    first, *later = map(int, done.stdout.split())
    assert first > 20 * max(later)


def test_where_the_c_library_is_not_glibc_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_libc", lambda: None)
    allocator.share_one_arena()
    with allocator.giving_back():
        pass
