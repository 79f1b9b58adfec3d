"""The examiner: runs rows that somebody asks about through the unfolded network and answers what norms see.

It belongs to the engine's thread and does a small piece of work whenever it is asked to, so that rows which
want the network's answers wait no longer than a piece takes. What it computes is in no window of drift.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from service.engine.budget import Budget
from service.engine.doorbell import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.batching.job import Part
    from service.batching.queue import Queue
    from service.engine.card import ModelKey
    from service.engine.linked_job import LinkedJob
    from service.engine.watching import Watching
    from service.plan.observation import Observation
    from service.telemetry import Telemetry

    _Step = Callable[[Part[LinkedJob]], Outcome | None]

log = logging.getLogger("foldserve.engine")

_PIECE_S = 0.0005
_BUSY_SHARE = 0.1
"""Of all time, what it takes even though rows wait for answers: nobody may wait for ever."""


class Examiner:
    """Computes the moments that jobs of the queue want, a row at a time and a few calls at once."""

    def __init__(
        self, queue: Queue[LinkedJob], reply: Callable[[LinkedJob, Outcome], None], telemetry: Telemetry
    ) -> None:
        self._queue = queue
        self._reply = reply
        self._telemetry = telemetry
        self._budget = Budget(_BUSY_SHARE)
        # The mutable state: what computes, by the numbers of what was loaded, and the row that is under way.
        self._observations: dict[int, Observation] = {}
        self._keys: dict[int, ModelKey] = {}
        self._row: Part[LinkedJob] | None = None

    def begin(self, number: int, key: ModelKey, watching: Watching | None) -> None:
        """Let jobs want the moments of what was loaded under this number; None: it has none."""
        if watching is not None:
            self._observations[number] = watching.observation.another()
            self._keys[number] = key

    def end(self, number: int) -> None:
        """Forget what was loaded under this number; a job of it that is left is of a worker that is gone."""
        if self._row and self._row.job.lane.model == number:
            self._row = None
        self._observations.pop(number, None)
        self._keys.pop(number, None)

    def work(self, busy_s: float = 0.0) -> bool:
        """Do a piece of work, if there is one; whether there may be more.

        `busy_s`: rows wait for answers, and the batch before this took so long. Then there is a piece only
        now and then, as long as a tenth of that batch.
        """
        if self._row is None and not self._queue.has("moments"):
            return False
        started = time.monotonic()
        if busy_s and not self._budget.has_some(started):
            return False
        step: _Step = partial(self._go_on, started + max(_PIECE_S, busy_s * _BUSY_SHARE))
        if self._row is None:
            self._row, step = self._next(started), self._begin
        if self._row is None:
            return False
        job = self._row.job
        outcome = self._tried(self._row, started, step)
        spent = time.monotonic() - started
        if busy_s:
            self._budget.spend(spent)
        job.compute_s += spent
        self._telemetry.examined(*self._keys[job.lane.model], spent)
        if outcome is not None:
            self._settle(job, outcome)
        return True

    def _next(self, now: float) -> Part[LinkedJob] | None:
        decision = self._queue.next(now, "moments")
        for job in decision.dropped:
            self._reply(job, Outcome.LATE)
        if not decision.run:
            return None
        (part,) = decision.run
        part.job.queue_s = part.job.queue_s or now - part.job.arrived
        return part

    def _tried(self, part: Part[LinkedJob], now: float, step: _Step) -> Outcome | None:
        """What became of the row by this step; None where more are needed. Who fails, fails alone."""
        if part.job.is_dead(now):
            return Outcome.LATE
        try:
            return step(part)
        except Exception:
            log.exception("%s/%s: rows that were asked about failed", *self._keys[part.job.lane.model])
            return Outcome.FAILED

    def _begin(self, part: Part[LinkedJob]) -> None:  # not through, however short the graph is
        self._observations[part.job.lane.model].begin(part.job.inputs[part.start : part.stop])

    def _go_on(self, until: float, part: Part[LinkedJob]) -> Outcome | None:
        job, observation = part.job, self._observations[part.job.lane.model]
        observation.run(until)
        if observation.is_running:
            return None
        job.outputs[part.start, 0], job.outputs[part.start, 1] = observation.finished()
        return Outcome.ANSWERED

    def _settle(self, job: LinkedJob, outcome: Outcome) -> None:
        """A row is through: tell the job's worker where it was the last, or nothing more is computed."""
        self._row = None
        if outcome is Outcome.ANSWERED:
            job.answered += 1
            job.batch_rows += 1
            if job.answered < job.rows:
                return
        else:
            self._observations[job.lane.model].forget()
            self._queue.withdraw(job)
        self._reply(job, outcome)
