"""Shared memory: an anonymous file that several processes map, and none of them can make smaller."""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def create(name: str, size: int) -> int:
    """The descriptor of `size` zero bytes, sealed against a change of size; the caller closes it."""
    descriptor = os.memfd_create(f"foldserve-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def is_sealed(descriptor: int) -> bool:
    """Whether nobody can change the size any more."""
    return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
