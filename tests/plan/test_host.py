"""How OpenMP's threads wait, and what the allocator keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

from service.plan import host


def test_openmp_is_told_to_sleep_soon() -> None:
    environment: dict[str, str] = {}
    host.calm_openmp(environment)
    assert environment == {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_policy_that_somebody_chose_is_left_alone(name: str) -> None:
    environment = {name: "chosen"}
    host.calm_openmp(environment)
    assert environment == {name: "chosen"}


GLIBC = sys.platform == "linux"


@pytest.mark.skipif(not GLIBC, reason="the settings are those of glibc")
def test_a_large_buffer_that_is_freed_is_reused_without_new_pages() -> None:
    source = """
import ctypes, resource, threading
from service.plan import host
assert host.keep_freed_memory()
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
assert faults[0] > 20 * max(faults[1:]), faults
host.give_back_freed_memory()
resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
assert resident < 100 << 20, resident
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_there_is_no_glibc_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_libc", lambda: None)
    assert not host.keep_freed_memory()
    host.give_back_freed_memory()
