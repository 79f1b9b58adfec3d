"""The host: its threads that wait and its memory that is freed, as a plan on the CPU wants them.

Imports no torch, which reads some of this when it is imported.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# About as long as the gap between two calls of a plan; then a thread sleeps and leaves its core to others.
_SPINS = "10000"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def calm_openmp(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP's threads sleep soon when they wait; call it before torch is imported.

    As torch comes, they spin for milliseconds. Where another process takes one of the cores, the thread that
    everybody waits for is then scheduled against spinning ones. ResNet-18 on four cores, milliseconds, alone
    and with one core taken: spinning 28 and 98, ten thousand spins 28 and 62, no spins 35 and 51. A policy
    that is set already is left alone.
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


def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # no such thing on this system
        return None
