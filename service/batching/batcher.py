"""The batcher: the queue between those who submit jobs and the engine that runs them."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from service.batching.policy import Decision, Limits, decide
from service.errors import DeadlinePassed, Draining, FoldserveError, JobCancelled, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.batching.job import Job, ModelKey

_RATE_MEMORY = 0.9


class Batcher:
    """Takes jobs from any thread and hands batches to one."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        # The mutable state, guarded by the condition's lock: who waits, how much that is, whether
        # more may come, what fits a batch of each model, and how fast rows were answered lately.
        self._waiting: list[Job] = []
        self._rows = 0
        self._closed = False
        self._max_batch: dict[ModelKey, int] = {}
        self._rows_per_s = 0.0

    def admit(self, key: ModelKey, max_batch: int) -> None:
        """Jobs of this model may be submitted from now on, `max_batch` rows to a batch."""
        with self._changed:
            self._max_batch[key] = max_batch

    def submit(self, job: Job) -> None:
        """Queue a job; raises `QueueFull` or `Draining` at once rather than later."""
        with self._changed:
            if self._closed:
                raise Draining("the service is shutting down")
            if self._waiting and self._rows + len(job) > self.limits.max_waiting_rows:
                raise QueueFull(
                    f"{self._rows} rows wait already; the queue holds {self.limits.max_waiting_rows}",
                    retry_after_s=self._seconds_until_empty(),
                )
            self._waiting.append(job)
            self._rows += len(job)
            self._changed.notify()

    def withdraw(self, job: Job) -> None:
        """Take a job back that nobody waits for any more: its rows make room at once."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._rows -= len(job)
                self._changed.notify()

    def next_batch(self) -> tuple[Job, ...]:
        """Wait for the next batch, all of one lane; empty once the batcher is closed and drained."""
        while True:
            with self._changed:
                decision = self._decide()
                if not decision.run and not decision.dropped:
                    if self._closed and not self._waiting:
                        return ()
                    self._changed.wait(decision.wait_s)
            for job in decision.dropped:
                job.reply(why_dropped(job))
            if decision.run:
                return decision.run

    def observe(self, rows: int, seconds: float) -> None:
        """Learn the service rate from a batch that was computed."""
        rate = rows / max(seconds, 1e-6)
        with self._changed:
            known = self._rows_per_s or rate
            self._rows_per_s = _RATE_MEMORY * known + (1 - _RATE_MEMORY) * rate

    def close(self) -> None:
        """Take no more jobs; those that wait are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail_all(self, why: FoldserveError) -> None:
        """Answer everything that waits with an error, and take no more jobs."""
        with self._changed:
            self._closed = True
            lost, self._waiting, self._rows = self._waiting, [], 0
            self._changed.notify_all()
        for job in lost:
            job.reply(why)

    @property
    def waiting_rows(self) -> int:
        """How many rows wait now."""
        return self._rows

    def _decide(self) -> Decision:
        """The policy's decision, carried out on the queue; a closed batcher waits for no company."""
        limits = replace(self.limits, max_delay_s=0.0) if self._closed else self.limits
        decision = decide(self._waiting, self._max_batch, limits, self._clock())
        leaving = {*decision.run, *decision.dropped}
        self._waiting = [job for job in self._waiting if job not in leaving]
        self._rows -= sum(map(len, leaving))
        return decision

    def _seconds_until_empty(self) -> int:
        return max(1, math.ceil(self._rows / self._rows_per_s)) if self._rows_per_s else 1

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Batcher {state}, {len(self._waiting)} jobs, {self._rows} rows waiting>"


def why_dropped(job: Job) -> FoldserveError:
    """What a job hears that is not run: it was cancelled, or its deadline has passed."""
    if job.cancelled:
        return JobCancelled("the job was cancelled while it waited")
    return DeadlinePassed("the deadline passed while the job waited")
