"""The host: its cores, its threads and its memory, as a plan on the CPU wants them. Imports no torch."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_CGROUP = Path("/sys/fs/cgroup")
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# About as long as the gap between two calls of a plan; then a thread sleeps and leaves its core to others.
_SPINS = "10000"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def owned_cores(cgroup: Path = _CGROUP) -> int:
    """How many cores this process may keep busy: those that it may run on, or its cgroup's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, _quota(cgroup))))


def calm_openmp(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP's threads sleep soon when they wait; call it before torch is imported.

    As torch comes, they spin for milliseconds. Where another process takes one of the cores, the thread that
    everybody waits for is then scheduled against spinning ones, and a plan takes fifty times as long. A
    policy that is set already is left alone.
    """
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = _SPINS
        environment["KMP_BLOCKTIME"] = "1"


def keep_freed_memory() -> bool:
    """Let the allocator keep what is freed for the next call; whether it could be told.

    By default glibc gives every buffer above 32 MiB back to the system at once, and clearing its pages
    again at the next batch takes several times as long as computing them. Call it before threads start.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_ARENA_MAX: 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def give_back_freed_memory() -> None:
    """Give what is free now back to the system, once: after loading, which needs more than serving."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _quota(cgroup: Path) -> float:
    """The cores of the cgroup's CPU quota, version 2 or 1; infinite where there is none."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):  # no cgroup, or `max`
        return math.inf


def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # no such thing on this system
        return None
