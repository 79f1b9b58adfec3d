"""Admission: what is asked before a request's work is taken on, so that a refusal costs nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InputTooLarge, QueueFull

if TYPE_CHECKING:
    from service.batching.policy import Limits
    from service.errors import FoldserveError

_MEMORY = 0.9
"""What a full batch leaves of the estimate before it."""


@dataclass(frozen=True)
class Load:
    """What all workers together have waiting."""

    waiting_rows: int
    work_s: float
    """Seconds that the engine needs for these rows at the measured rates of their models."""


def refusal(load: Load, rows: int, rate: Rate, timeout_s: float, limits: Limits) -> FoldserveError | None:
    """Why `rows` more rows of the model with this rate must not wait now; None where they may.

    They are refused where they do not fit into the queue, or where the work before them and the batch
    that they will be in take longer than `timeout_s`. An engine that has nothing to do takes whatever
    fits: a rate that is wrong would else never be put right.
    """
    if rows > limits.max_waiting_rows:
        return InputTooLarge(f"{rows} rows; the queue holds {limits.max_waiting_rows}")
    excess = load.waiting_rows + rows - limits.max_waiting_rows
    if excess > 0:
        return QueueFull(
            f"{load.waiting_rows} rows wait already; the queue holds {limits.max_waiting_rows}",
            retry_after_s=whole_seconds(excess / load.waiting_rows * load.work_s),
        )
    # Whoever comes later joins the last batch, and makes it longer: a queue that is always as long as
    # the time allows would else answer everybody a little too late.
    batch_rows = max(rows, min(load.waiting_rows + rows, rate.max_batch))
    needed_s = load.work_s + batch_rows * rate.seconds_per_row
    if load.work_s > 0 and needed_s > timeout_s:
        return QueueFull(
            f"the queue needs about {needed_s:.1f} s, this request has {timeout_s:.1f} s",
            retry_after_s=whole_seconds(needed_s - timeout_s),
        )
    return None


def whole_seconds(seconds: float) -> int:
    """For a Retry-After: rounded up, at least 1."""
    return max(1, math.ceil(seconds))


class Rate:
    """Seconds that one row of a model takes in full batches, as measured."""

    def __init__(self, seconds_per_row: float, max_batch: int) -> None:
        # The mutable state: the estimate, at first what was measured before anybody asked.
        self.seconds_per_row = seconds_per_row
        self.max_batch = max_batch

    def observe(self, rows: int, batch_rows: int, seconds: float) -> None:
        """Learn from an answer of `rows` rows out of batches of together `batch_rows` that took `seconds`.

        However many answers a batch is split into, it counts as much as one batch. One less than
        half full says little about full ones and can only lower the estimate.
        """
        seen = seconds / batch_rows
        if 2 * batch_rows < self.max_batch and seen > self.seconds_per_row:
            return
        kept = _MEMORY ** (rows / batch_rows)
        self.seconds_per_row = kept * self.seconds_per_row + (1 - kept) * seen

    def __repr__(self) -> str:
        return f"<Rate {self.seconds_per_row * 1e3:.3g} ms a row>"
