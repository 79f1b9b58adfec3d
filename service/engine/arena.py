"""The arena: memory that one worker and the engine share, handed out in runs of slots.

It is an anonymous file, so that a container's small `/dev/shm` does not matter, sealed against a change of
its size, so that neither side can pull memory away under the other. Pages take memory when they are first
written. The worker alone says what is taken (`Slots`); the engine reads and writes where it is told to, after
it has seen that this lies inside.
"""

from __future__ import annotations

import bisect
import math
import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from service.engine import shared_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOT_BYTES = 4096
"""A page: rows begin where vector instructions and a device's copies like it."""


def create(slots: int) -> int:
    """The descriptor of a new arena of so many slots; the caller closes it."""
    return shared_memory.create("arena", slots * SLOT_BYTES)


def slots_for(rows: int, *sizes: int) -> int:
    """How many slots hold so many rows of each of these sizes in bytes, each kind beginning with a slot."""
    return sum(-(-rows * size // SLOT_BYTES) for size in sizes)


class Arena:
    """An arena mapped into this process; raises `ValueError` for one that could change its size."""

    def __init__(self, descriptor: int) -> None:
        if not shared_memory.is_sealed(descriptor):
            raise ValueError("the arena is not sealed")
        self.slots = os.fstat(descriptor).st_size // SLOT_BYTES
        self._memory = mmap.mmap(descriptor, self.slots * SLOT_BYTES)

    def holds(self, first: int, count: int) -> bool:
        """Whether these slots lie inside."""
        return first >= 0 and count > 0 and first + count <= self.slots

    def array(self, first: int, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """The memory from slot `first` on as an array, C-contiguous; it keeps the mapping alive."""
        return np.ndarray(tuple(shape), dtype, self._memory, first * SLOT_BYTES)

    def __repr__(self) -> str:
        return f"<Arena of {self.slots} slots>"


class Slots:
    """Which slots of an arena are free; the lowest run that is long enough is taken.

    Low runs are used again and again, so that the arena's upper pages never take memory.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0
        # The mutable state: the free runs in order, none touching the next.
        self._starts: list[int] = [0]
        self._lengths: list[int] = [count]

    def take(self, count: int) -> int | None:
        """The first of so many adjoining slots, theirs until `give`; None where no run is long enough."""
        for index, length in enumerate(self._lengths):
            if length >= count:
                return self._cut(index, count)
        return None

    def give(self, first: int, count: int) -> None:
        """Take a run back; it joins the free runs that it touches."""
        self.taken -= count
        index = bisect.bisect_left(self._starts, first)
        if index < len(self._starts) and first + count == self._starts[index]:
            count += self._lengths.pop(index)
            self._starts.pop(index)
        if index and self._starts[index - 1] + self._lengths[index - 1] == first:
            self._lengths[index - 1] += count
            return
        self._starts.insert(index, first)
        self._lengths.insert(index, count)

    def _cut(self, index: int, count: int) -> int:
        first = self._starts[index]
        self.taken += count
        if self._lengths[index] == count:
            self._starts.pop(index)
            self._lengths.pop(index)
        else:
            self._starts[index] += count
            self._lengths[index] -= count
        return first

    def __repr__(self) -> str:
        return f"<Slots {self.taken} of {self.count} taken>"


def row_bytes(shape: Sequence[int], dtype: Any) -> int:
    """Bytes of one row."""
    return int(math.prod(shape) * np.dtype(dtype).itemsize)
