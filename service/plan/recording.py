"""Recordings: a computation recorded once for each batch bucket, and replayed in memory that stays its own.

What a device replays reads and writes the same memory every time, and always computes a whole bucket:
rows are copied in front of whatever lies there, and only their own answers are copied out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor


class Recorder(Protocol):
    """Records computations for one device."""

    device: torch.device

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What computes the same again, on what then lies in the same memory, into one tensor of its own.

        Its answer is there once `wait` returns, and until anything that was recorded runs again.
        """

    def wait(self) -> None:
        """Return when the device has done everything that it was given."""

    def pool_bytes(self) -> int:
        """What its recordings hold of the device's memory beside what they were given."""


@dataclass(frozen=True)
class _Tape:
    """The recordings for rows of one dtype, and the memory that they read."""

    staged: Tensor
    """Rows on their way to the device, in memory that it can read by itself: `[largest bucket, ...]`."""
    rows: Tensor
    """The same on the device."""
    replays: Mapping[int, Callable[[], Tensor]]
    """What computes the first rows, for each bucket."""


class Recordings:
    """Answers rows with recordings of `compute`, one for each bucket and dtype, on one thread.

    The recordings for a dtype are made when its first rows come, for the largest bucket first, so that the
    smaller ones find room in the memory of the larger.
    """

    def __init__(
        self, compute: Callable[[Tensor], Tensor], recorder: Recorder, buckets: Sequence[int]
    ) -> None:
        self._compute = compute
        self._recorder = recorder
        self._buckets = sorted(buckets, reverse=True)
        self._tapes: dict[torch.dtype, _Tape] = {}  # the only thing that changes: it gains dtypes

    def __call__(self, rows: Tensor) -> Tensor:
        """Answer `[N, ...]` rows on the CPU, N up to the largest bucket, with `[N, ...]` on the CPU.

        Raises `ValueError` for rows of another shape than the first of their dtype.
        """
        tape = self._tapes.get(rows.dtype) or self._record(rows)
        if rows.shape[1:] != tape.rows.shape[1:]:
            raise ValueError(f"rows of {list(rows.shape[1:])} where {list(tape.rows.shape[1:])} are recorded")
        count = len(rows)
        tape.staged[:count].copy_(rows)
        tape.rows[:count].copy_(tape.staged[:count], non_blocking=True)
        answers = tape.replays[smallest(self._buckets, count)]()
        own = answers[:count].to("cpu", non_blocking=True, copy=True)
        self._recorder.wait()
        return own

    def _record(self, rows: Tensor) -> _Tape:
        shape, device = (self._buckets[0], *rows.shape[1:]), self._recorder.device
        staged = torch.zeros(shape, dtype=rows.dtype, pin_memory=device.type == "cuda")
        on_device = torch.zeros(shape, dtype=rows.dtype, device=device)
        replays = {bucket: self._replay(on_device[:bucket]) for bucket in self._buckets}
        return self._tapes.setdefault(rows.dtype, _Tape(staged, on_device, replays))

    def _replay(self, rows: Tensor) -> Callable[[], Tensor]:
        return self._recorder.record(lambda: self._compute(rows))


def smallest(buckets: Sequence[int], count: int) -> int:
    """The smallest bucket that holds `count` rows."""
    return min(bucket for bucket in buckets if bucket >= count)
