"""The C library's allocator, told what loading wants and what serving wants."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# From glibc's malloc.h; the largest threshold that it takes, and the trim threshold that it goes with.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_WHILE_LOADING = 1 << 20
_LARGEST = 32 << 20


@contextmanager
def giving_back() -> Iterator[None]:
    """Let large tensors that are freed inside the block go back to the system at once.

    Loading frees several copies of the weights, in sizes that fit no later ones: kept, they would add up.
    Behind the block the C library keeps what it can, because serving asks for the same sizes again and
    again. Does nothing where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    mallopt, trim = getattr(libc, "mallopt", None), getattr(libc, "malloc_trim", None)
    if mallopt is None or trim is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _WHILE_LOADING)
    mallopt(_M_TRIM_THRESHOLD, _WHILE_LOADING)
    try:
        yield
    finally:
        trim(0)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST)
