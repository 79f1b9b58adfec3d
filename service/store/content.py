"""The content of a stored file: read only where it has an end.

A named pipe or a device in the place of a file would be waited for, by a thread that nobody can end.
"""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def size(path: Path) -> int:
    """The bytes of the file; raises `OSError`, also for what is no regular file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return status.st_size


def read(path: Path) -> bytes:
    """All of it; raises as `size` does."""
    size(path)
    return path.read_bytes()
