"""The batching policy: a pure decision about which waiting jobs to run now.

Busy-batching: an idle engine takes what waits, oldest first, up to the limit, and adds no delay of
its own unless `max_delay_s` asks for one. It counts rows, not jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.batching.job import Job, ModelKey


@dataclass(frozen=True)
class Limits:
    """What bounds the queue and the batch."""

    max_waiting_rows: int
    """More rows than this do not wait: they are refused."""
    max_delay_s: float = 0.0
    """How long the oldest job may wait for company, counted from its arrival."""


@dataclass(frozen=True)
class Decision:
    """What to do now: run these together, tell those that they are too late, and when to look again."""

    run: tuple[Job, ...] = ()
    dropped: tuple[Job, ...] = ()
    """Cancelled, or past their deadline; they never reach the device."""
    wait_s: float | None = None
    """Look again after so long; None: when the next job arrives."""


def decide(waiting: Iterable[Job], max_batch: Mapping[ModelKey, int], limits: Limits, now: float) -> Decision:
    """Choose among `waiting` jobs, which are in order of arrival.

    The oldest live job chooses the lane. Jobs of that lane join it in order while they fit into
    the model's `max_batch` rows; a job that does not fit ends the batch, so that none is overtaken
    by a younger one of its lane. A job larger than `max_batch` runs alone.
    """
    run: list[Job] = []
    dropped: list[Job] = []
    rows, full = 0, False
    for job in waiting:
        if job.cancelled or is_late(job, now):
            dropped.append(job)
        elif not run or job.lane == run[0].lane:
            full = bool(run) and rows + len(job) > max_batch[job.key]
            if full:
                break
            run.append(job)
            rows += len(job)
    if not run:
        return Decision(dropped=tuple(dropped))
    company_until = run[0].arrived + limits.max_delay_s
    patience = company_until - now
    is_urgent = any(job.deadline is not None and job.deadline <= company_until for job in run)
    if patience > 0 and not full and not is_urgent and rows < max_batch[run[0].key]:
        return Decision(dropped=tuple(dropped), wait_s=patience)
    return Decision(run=tuple(run), dropped=tuple(dropped))


def is_late(job: Job, now: float) -> bool:
    """Whether the job's deadline has passed."""
    return job.deadline is not None and now >= job.deadline
