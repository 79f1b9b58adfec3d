"""The board: a few numbers that every process sees and exactly one writes.

Each is eight bytes, aligned, so that it is read as it was written, without any lock.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import TYPE_CHECKING

from service.batching.admission import Load
from service.engine import shared_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

_PART_BYTES = 64  # a cache line: whoever writes one part does not slow the readers of another


def create(workers: int) -> int:
    """The descriptor of a new board for so many workers; the caller closes it."""
    return shared_memory.create("board", _PART_BYTES * (2 + workers))


class _Whole:
    """One of a part's whole numbers, at its place."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, part: Part, _: object = None) -> int:
        return part.whole[self._place]

    def __set__(self, part: Part, value: int) -> None:
        part.whole[self._place] = value


class _Real(_Whole):
    """One of its real numbers."""

    def __get__(self, part: Part, _: object = None) -> float:  # type: ignore[override]
        return part.real[self._place]

    def __set__(self, part: Part, value: float) -> None:
        part.real[self._place] = value


class Part:
    """The numbers of one process, which alone writes them; the supervisor clears those of a dead one."""

    pid = _Whole(0)
    """0 while there is no such process."""
    rows = _Whole(1)
    """Of a worker: its rows that wait or are computed. Of the engine: those that it computes."""
    slots = _Whole(2)
    """Of a worker: those of its arena."""
    slots_taken = _Whole(3)
    alive_at = _Real(4)
    """When it was last heard of; 0 until it does its work."""
    work_s = _Real(5)
    """Of a worker: how long the engine will need for its rows, by its estimate."""
    begun_at = _Real(6)
    """When the supervisor, which writes this alone, started it; 0 once an engine begins to load."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.whole = memory.cast("q")
        self.real = memory.cast("d")

    def beat(self) -> None:
        """Say that the process does its work."""
        self.alive_at = time.monotonic()

    def is_silent(self, longest_s: float) -> bool:
        """Whether a process that was heard of has not been for so long."""
        return self.alive_at > 0 and time.monotonic() - self.alive_at > longest_s

    def clear(self) -> None:
        """Set everything to 0."""
        self._memory[:] = bytes(len(self._memory))


class Board:
    """The board mapped into this process: a part for each process. Times are of the monotonic clock."""

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        memory = memoryview(mmap.mmap(descriptor, size))
        starts = range(0, size, _PART_BYTES)
        parts = [Part(memory[start : start + _PART_BYTES]) for start in starts]
        self.supervisor, self.engine, *self.workers = parts

    def load(self) -> Load:
        """What waits for the engine, over all workers."""
        rows, work_s = -self.engine.rows, 0.0
        for worker in self.workers:
            rows += worker.rows
            work_s += worker.work_s
        return Load(max(rows, 0), work_s)

    def pids(self) -> Mapping[str, int]:
        """The processes that run, by their part."""
        workers = {f"worker-{number}": worker for number, worker in enumerate(self.workers)}
        parts = {"supervisor": self.supervisor, "engine": self.engine} | workers
        return {name: part.pid for name, part in parts.items() if part.pid}
