"""Admission: what is asked before a request's work is taken on, so that a refusal costs nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import QueueFull

if TYPE_CHECKING:
    from service.batching.policy import Limits
    from service.errors import Unavailable

_MEMORY = 0.9
"""What a full batch leaves of the estimate before it."""


@dataclass(frozen=True)
class Load:
    """What all workers together have waiting."""

    waiting_rows: int
    work_s: float
    """Seconds that the engine needs for these rows at the measured rates of their models."""


def refusal(
    load: Load, rows: int, seconds_per_row: float, timeout_s: float, limits: Limits
) -> Unavailable | None:
    """Why `rows` more rows, each `seconds_per_row` of work, must not wait now; None where they may.

    A request that finds nothing waiting is always taken. Else it is refused where its rows do not
    fit into the queue, or where the work before it alone takes longer than `timeout_s`.
    """
    if load.waiting_rows <= 0:
        return None
    excess = load.waiting_rows + rows - limits.max_waiting_rows
    if excess > 0:
        # Rows that never fit are taken once nothing waits.
        share = min(excess / load.waiting_rows, 1.0)
        return QueueFull(
            f"{load.waiting_rows} rows wait already; the queue holds {limits.max_waiting_rows}",
            retry_after_s=_whole(share * load.work_s),
        )
    if load.work_s > timeout_s:
        return QueueFull(
            f"the queue needs about {load.work_s:.1f} s, this request has {timeout_s:.1f} s",
            retry_after_s=_whole(load.work_s + rows * seconds_per_row - timeout_s),
        )
    return None


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


class Rate:
    """Seconds that one row of a model takes in full batches, as measured."""

    def __init__(self, seconds_per_row: float, max_batch: int) -> None:
        # The mutable state: the estimate, at first what was measured before anybody asked.
        self.seconds_per_row = seconds_per_row
        self._max_batch = max_batch

    def observe(self, rows: int, batch_rows: int, seconds: float) -> None:
        """Learn from an answer of `rows` rows out of a batch of `batch_rows` that took `seconds`.

        However many answers a batch is split into, it counts as much as one batch. One less than
        half full says little about full ones and can only lower the estimate.
        """
        seen = seconds / batch_rows
        if 2 * batch_rows < self._max_batch and seen > self.seconds_per_row:
            return
        kept = _MEMORY ** (rows / batch_rows)
        self.seconds_per_row = kept * self.seconds_per_row + (1 - kept) * seen

    def __repr__(self) -> str:
        return f"<Rate {self.seconds_per_row * 1e3:.3g} ms a row>"
