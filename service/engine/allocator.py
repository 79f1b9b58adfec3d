"""The C library's allocator, told what loading wants and what serving wants; only glibc's can be told."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_GIVING = {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 1 << 20, _M_TRIM_THRESHOLD: 1 << 20}
_KEEPING = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}


def share_one_arena() -> None:
    """Let every thread allocate from the same memory; call it before threads start.

    A thread's own arena cannot hold a large buffer, so that none could be kept for the next batch.
    """
    _tell({_M_ARENA_MAX: 1})


@contextmanager
def giving_back() -> Iterator[None]:
    """Let large tensors that are freed inside the block go back to the system at once; behind it, keep them.

    Loading frees several copies of the weights, in sizes that fit no later ones: kept, they would add up.
    Serving asks for the same sizes again and again. By default glibc gives every buffer above 32 MiB back,
    and the kernel has to clear its pages again at the next batch.
    """
    _tell(_GIVING)
    try:
        yield
    finally:
        trim = getattr(_libc(), "malloc_trim", None)
        if trim is not None:
            trim(0)
        keep()


def keep_images() -> None:
    """Let memory of up to 32 MiB, such as most images take while they are decoded, stay with the process.

    To clear new pages takes a quarter of the time that a large image takes (docs/benchmarks.md, "Decoding").
    """
    _tell({_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 64 << 20})


def keep() -> None:
    """Let memory that is freed from now on stay with the process, for the next batch."""
    _tell(_KEEPING)


def _tell(settings: Mapping[int, int]) -> None:
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        for name, value in settings.items():
            mallopt(name, value)


def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # there is no such thing on this system
        return None
