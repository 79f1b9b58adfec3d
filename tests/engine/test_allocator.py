"""What is freed while loading goes back to the system, holes between what stays included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
