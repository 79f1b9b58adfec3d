"""The batching policy: a pure decision about which waiting rows to run now.

Busy-batching: an idle engine takes what waits, oldest first, up to the limit, and adds no delay of
its own unless `max_delay_s` asks for one. It counts rows, not jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from service.batching.job import JobT, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True)
class Limits:
    """What bounds the queue and the batch."""

    max_waiting_rows: int
    """More rows than this do not wait: they are refused."""
    max_delay_s: float = 0.0
    """How long the oldest job may wait for company, counted from its arrival."""


@dataclass(frozen=True)
class Decision(Generic[JobT]):
    """What to do now: run these rows together, give those jobs up, and when to look again."""

    run: tuple[Part[JobT], ...] = ()
    """Of one lane, in order of arrival; no more rows than the model's `max_batch`."""
    dropped: tuple[JobT, ...] = ()
    """Cancelled, or past their deadline; what is left of them never reaches the device."""
    wait_s: float | None = None
    """Look again after so long; None: at once after a run, else when the next job arrives."""


def decide(
    waiting: Iterable[Iterable[JobT]], max_batch: Mapping[int, int], limits: Limits, now: float
) -> Decision[JobT]:
    """Choose among `waiting` jobs: those of each lane apart, in order of arrival.

    The oldest live job chooses the lane. Jobs of that lane join it in order while they fit whole
    into the model's `max_batch` rows; one that does not fit ends the batch, so that none is
    overtaken by a younger one of its lane. A job of more rows than that is split: it gives a full
    batch whenever it is the oldest, and others join its last rows. While the oldest lane waits for
    company, the next one that need not wait runs.
    """
    dropped: list[JobT] = []
    lanes = [lane for jobs in waiting if (lane := _skip_dead(iter(jobs), now, dropped))]
    lanes.sort(key=lambda lane: lane[0].arrived)
    waits = []
    for oldest, others in lanes:
        parts, is_full = _fill(oldest, others, max_batch[oldest.lane.model], now, dropped)
        wait_s = 0.0 if is_full else _patience(parts, limits, now)
        if wait_s <= 0:
            return Decision(tuple(parts), tuple(dropped))
        waits.append(wait_s)
    return Decision((), tuple(dropped), min(waits, default=None))


def _skip_dead(jobs: Iterator[JobT], now: float, dropped: list[JobT]) -> tuple[JobT, Iterator[JobT]] | None:
    """The oldest live job and those behind it; the dead before it go to `dropped`."""
    for job in jobs:
        if not job.is_dead(now):
            return job, jobs
        dropped.append(job)
    return None


def _fill(
    oldest: JobT, others: Iterator[JobT], room: int, now: float, dropped: list[JobT]
) -> tuple[list[Part[JobT]], bool]:
    """The batch that begins with `oldest`, and whether it is as full as it can become."""
    parts = [Part(oldest, oldest.taken, min(oldest.rows, oldest.taken + room))]
    room -= oldest.remaining
    for job in others:
        if job.is_dead(now):
            dropped.append(job)
        elif (remaining := job.remaining) > room:
            return parts, True
        else:
            parts.append(Part(job, job.taken, job.rows))
            room -= remaining
    return parts, room <= 0


def _patience(parts: list[Part[JobT]], limits: Limits, now: float) -> float:
    """Seconds that a batch with room left waits for company; none where a deadline would pass meanwhile."""
    company_until = parts[0].job.arrived + limits.max_delay_s
    if any(part.job.deadline <= company_until for part in parts):
        return 0.0
    return company_until - now
