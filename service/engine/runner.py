"""The runner: has a batch computed and answers its jobs; a job that fails fails alone."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.engine.doorbell import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.batching.job import Part
    from service.batching.queue import Queue
    from service.engine.board import Part as BoardPart
    from service.engine.linked_job import LinkedJob
    from service.engine.repertoire import Repertoire
    from service.engine.sampler import Sampler
    from service.engine.switchboard import Switchboard
    from service.telemetry import Telemetry

log = logging.getLogger("foldserve.engine")


class Runner:
    """Runs batches of `queue` through the plans of `repertoire`; `own` is the engine's part of the board."""

    def __init__(
        self,
        queue: Queue[LinkedJob],
        repertoire: Repertoire,
        switchboard: Switchboard,
        sampler: Sampler,
        own: BoardPart,
        telemetry: Telemetry,
    ) -> None:
        self._queue = queue
        self._repertoire = repertoire
        self._switchboard = switchboard
        self._sampler = sampler
        self._own = own
        self._telemetry = telemetry

    def run(self, batch: Sequence[Part[LinkedJob]]) -> None:
        """Run one batch; where it fails, run every part of it alone, so that a bad one fails alone."""
        try:
            self._answer(batch)
        except Exception:
            log.exception("a batch of %d jobs failed", len(batch))
            if len(batch) > 1:
                for part in batch:
                    self._run_alone(part)
                return
            job = batch[0].job
            self._queue.withdraw(job)
            self._switchboard.reply(job, Outcome.FAILED)
            self._switchboard.flush()
            self._require_health(job)

    def _run_alone(self, part: Part[LinkedJob]) -> None:
        self._own.beat()
        if part.job.answered == part.job.rows:  # and its run may belong to somebody else by now
            return
        if part.job.is_dead(time.monotonic()):
            self._queue.withdraw(part.job)
            self._switchboard.reply(part.job, Outcome.LATE)
        else:
            self.run([part])

    def _answer(self, batch: Sequence[Part[LinkedJob]]) -> None:
        model, started = batch[0].job.lane.model, time.monotonic()
        inputs = [part.job.inputs[part.start : part.stop] for part in batch]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        self._own.rows = len(rows)
        answers = self._repertoire.plan(model)(torch.from_numpy(rows)).numpy()
        seconds = time.monotonic() - started
        first = 0
        for part in batch:
            size = part.stop - part.start
            part.job.outputs[part.start : part.stop] = answers[first : first + size]
            first += size
            self._count(part, started, seconds, len(rows))
        # Before the replies go: from then on the rows' memory may be somebody else's.
        self._sampler.see(model, rows, answers, batch)
        # Before anybody hears of it: who has an answer may ask at once how many batches there were.
        facts = self._repertoire.facts[model]
        self._telemetry.batch(facts.model, facts.version, len(rows))
        self._switchboard.flush()

    def _require_health(self, job: LinkedJob) -> None:
        """Raise where rows that are surely good fail, too: then only a new process helps the device."""
        self._repertoire.plan(job.lane.model)(torch.zeros(1, *job.inputs.shape[1:]))

    def _count(self, part: Part[LinkedJob], started: float, seconds: float, batch_rows: int) -> None:
        job = part.job
        if not job.answered:
            job.queue_s = started - job.arrived
        job.answered += part.stop - part.start
        job.compute_s += seconds
        job.batch_rows += batch_rows
        if job.answered == job.rows:
            self._switchboard.reply(job, Outcome.ANSWERED)
