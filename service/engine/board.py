"""The board: a few numbers that every process sees and exactly one writes.

Each is eight bytes, aligned, so that it is read as it was written, without any lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from typing import TYPE_CHECKING

import numpy as np

from service.batching.admission import Load

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

# One cache line each.
_WORKER = np.dtype(
    {
        "names": ["rows", "work_s", "slots", "slots_taken", "alive_at", "pid"],
        "formats": ["i8", "f8", "i8", "i8", "f8", "i8"],
        "itemsize": 64,
    }
)
_ENGINE = np.dtype(
    {"names": ["running_rows", "alive_at", "pid"], "formats": ["i8", "f8", "i8"], "itemsize": 64}
)
_SUPERVISOR = np.dtype({"names": ["workers_up", "pid"], "formats": ["i8", "i8"], "itemsize": 64})


def create(workers: int) -> int:
    """The descriptor of a new board for so many workers; the caller closes it."""
    descriptor = os.memfd_create("foldserve-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _SUPERVISOR.itemsize + _ENGINE.itemsize + workers * _WORKER.itemsize)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


class Board:
    """The board mapped into this process.

    `supervisor`, `engine` and each of `workers` is written by that process alone; the supervisor clears the
    part of a process that is dead. Times are seconds of the monotonic clock.
    """

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        memory = mmap.mmap(descriptor, size)
        engine, workers = _SUPERVISOR.itemsize, _SUPERVISOR.itemsize + _ENGINE.itemsize
        self.supervisor = np.ndarray((), _SUPERVISOR, memory)
        self.engine = np.ndarray((), _ENGINE, memory, engine)
        self.workers = np.ndarray(((size - workers) // _WORKER.itemsize,), _WORKER, memory, workers)

    def load(self) -> Load:
        """What waits for the engine, over all workers."""
        rows = int(self.workers["rows"].sum()) - int(self.engine["running_rows"])
        return Load(max(rows, 0), float(self.workers["work_s"].sum()))

    def is_silent(self, part: np.ndarray | np.void, longest_s: float) -> bool:
        """Whether `engine` or one of `workers`, once it was up, has not been heard of for so long."""
        heard = float(part["alive_at"])
        return heard > 0 and time.monotonic() - heard > longest_s

    def pids(self) -> Mapping[str, int]:
        """The processes that run, by their part."""
        found = {"supervisor": int(self.supervisor["pid"]), "engine": int(self.engine["pid"])}
        found |= {f"worker-{number}": int(pid) for number, pid in enumerate(self.workers["pid"])}
        return {part: pid for part, pid in found.items() if pid}
