"""The queue: the jobs that wait for the engine, and what of them has been handed out."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Generic

from service.batching.job import JobT
from service.batching.policy import Decision, decide
from service.errors import UnknownModel

if TYPE_CHECKING:
    from service.batching.job import Lane, Wanted
    from service.batching.policy import Limits

_ARRIVED = attrgetter("arrived")


class Queue(Generic[JobT]):
    """Plain data for one thread; it refuses nobody (`service.batching.admission` does, before the work)."""

    def __init__(self, limits: Limits) -> None:
        # The mutable state: who waits, apart by lane and in order of arrival, how many rows that
        # is, what fits a batch of each model, and whether company may still come.
        self._waiting: dict[Lane, list[JobT]] = {}
        self._rows = 0
        self._max_batch: dict[Wanted, dict[int, int]] = {"answers": {}, "moments": {}}
        self._limits: dict[Wanted, Limits] = {
            "answers": limits,
            "moments": replace(limits, max_delay_s=0.0),  # no company would come
        }
        self._closed = False

    def admit(self, model: int, max_batch: int) -> None:
        """Jobs of the model of this number may be submitted from now on, `max_batch` rows to a batch.

        Moments are computed a row at a time: nothing is won by more, and whatever else waits has its turn.
        """
        self._max_batch["answers"][model] = max_batch
        self._max_batch["moments"][model] = 1

    def dismiss(self, model: int) -> None:
        """None may be any more; one that still waits is of a worker that is gone, and leaves."""
        for lane in [lane for lane in self._waiting if lane.model == model]:
            for job in self._waiting[lane].copy():
                self.withdraw(job)
            del self._waiting[lane]
        for of_model in self._max_batch.values():
            del of_model[model]

    def submit(self, job: JobT) -> None:
        """Queue a job behind those that arrived before it; raises `UnknownModel`."""
        if job.lane.model not in self._max_batch[job.lane.wanted]:
            raise UnknownModel(f"no model has the number {job.lane.model}")
        insort(self._waiting.setdefault(job.lane, []), job, key=_ARRIVED)
        self._rows += job.remaining

    def withdraw(self, job: JobT) -> bool:
        """Cancel a job; whether it left the queue. One of which no row waits any more cannot."""
        job.cancelled = True
        return self._remove(job)

    def next(self, now: float, wanted: Wanted = "answers") -> Decision[JobT]:
        """The policy's decision at `now` among the jobs of one kind, carried out.

        Its rows are taken and its dropped jobs have left.
        """
        waiting = [jobs for lane, jobs in self._waiting.items() if lane.wanted == wanted]
        decision = decide(waiting, self._max_batch[wanted], self._limits[wanted], now)
        for job in decision.dropped:
            self._remove(job)
        for job, start, stop in decision.run:
            job.taken = stop
            self._rows -= stop - start
        done = [part.job for part in decision.run if not part.job.remaining]
        if done:  # the oldest of their lane, now that the dropped are gone
            del self._waiting[done[0].lane][: len(done)]
        return decision

    def close(self) -> None:
        """Wait for no company any more; what is here, or still comes, runs as soon as it can."""
        self._closed = True
        self._limits["answers"] = self._limits["moments"]

    def has(self, wanted: Wanted) -> bool:
        """Whether a job of this kind waits; quicker than `next`."""
        return any(jobs and lane.wanted == wanted for lane, jobs in self._waiting.items())

    @property
    def waiting_rows(self) -> int:
        """Rows that no batch has taken yet."""
        return self._rows

    def _remove(self, job: JobT) -> bool:
        jobs = self._waiting.get(job.lane, [])
        place = bisect_left(jobs, job.arrived, key=_ARRIVED)
        while place < len(jobs) and jobs[place] is not job and jobs[place].arrived == job.arrived:
            place += 1
        if place == len(jobs) or jobs[place] is not job:
            return False
        del jobs[place]
        self._rows -= job.remaining
        return True

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Queue {state}, {sum(map(len, self._waiting.values()))} jobs, {self._rows} rows waiting>"
