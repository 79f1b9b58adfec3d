"""The job: rows of one model that somebody waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from service.errors import FoldserveError


class ModelKey(NamedTuple):
    """One version of one model."""

    model: str
    version: int


class Lane(NamedTuple):
    """What rows must share to be computed in one batch."""

    key: ModelKey
    dtype: str


@dataclass(frozen=True)
class Answer:
    """The rows that a job gets back, and where its time went."""

    rows: np.ndarray
    """float32 `[N, ...]`, one answer per input row, in order."""
    queue_s: float
    compute_s: float
    batch_rows: int
    """Rows of all jobs in the batch that computed it."""


@dataclass(eq=False)
class Job:
    """Rows to compute, and whom to tell; the reply rides with the work."""

    key: ModelKey
    rows: np.ndarray
    """uint8 pixels or float32 network inputs, `[N, C, H, W]`."""
    reply: Callable[[Answer | FoldserveError], None]
    """Called once, from the engine's thread."""
    arrived: float
    """Seconds of the monotonic clock, as every time here."""
    deadline: float | None = None
    # The mutable state: set by the one who submitted, read by whoever would compute.
    cancelled: bool = field(default=False, kw_only=True)

    @property
    def lane(self) -> Lane:
        """What other jobs must share to be batched with this one."""
        return Lane(self.key, self.rows.dtype.name)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        state = " cancelled" if self.cancelled else ""
        return f"<Job {self.key.model}/{self.key.version} {len(self)} rows{state}>"
