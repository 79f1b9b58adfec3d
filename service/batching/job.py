"""The job: rows of one model that somebody waits for, as numbers; the rows themselves lie elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np


Wanted = Literal["answers", "moments"]
"""What is asked of rows: the network's answers, or the moments that its watched norms see of each."""


class Lane(NamedTuple):
    """What rows must share to be computed in one batch."""

    model: int
    """The number of what was loaded: a version that is loaded anew has another one."""
    dtype: str
    wanted: Wanted = "answers"


@dataclass(frozen=True)
class Answer:
    """The rows that a job gets back, and where its time went."""

    rows: np.ndarray
    """float32 `[N, ...]`, one answer per input row, in order; of moments `[N, 2, C]`, means and variances."""
    queue_s: float
    compute_s: float
    batch_rows: int
    """Rows of all jobs in the batches that computed it."""


@dataclass(eq=False)
class Job:
    """So many rows to compute; whoever queues it may subclass it to say where they lie and whom to tell."""

    lane: Lane
    rows: int
    """How many; at least 1."""
    arrived: float
    """Seconds of the monotonic clock, as every time here; the same as long as the job waits."""
    deadline: float
    # The mutable state: whether nobody waits for it any more, and how many rows batches took so far.
    cancelled: bool = field(default=False, kw_only=True)
    taken: int = field(default=0, kw_only=True)

    @property
    def remaining(self) -> int:
        """Rows that no batch has taken yet."""
        return self.rows - self.taken

    def is_dead(self, now: float) -> bool:
        """Whether nobody would read an answer: it was cancelled, or its deadline has passed."""
        return self.cancelled or now >= self.deadline

    def __repr__(self) -> str:
        taken = f", {self.taken} taken" if self.taken else ""
        cancelled = ", cancelled" if self.cancelled else ""
        return f"<Job of model {self.lane.model}, {self.lane.dtype}, {self.rows} rows{taken}{cancelled}>"


JobT = TypeVar("JobT", bound=Job)


class Part(NamedTuple, Generic[JobT]):
    """A stretch of a job's rows, half open: the whole job, or what of it fits a batch."""

    job: JobT
    start: int
    stop: int
