"""The engine: the one process that owns a device, loads the models and runs the batches.

One thread does all of it. Between two batches it hears what the workers rang, without waiting; while nothing
waits, it sleeps until somebody rings.
"""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.batching.queue import Queue
from service.engine.acceptance import Acceptance
from service.engine.control import Kind, Message
from service.engine.doorbell import Outcome
from service.engine.examiner import Examiner
from service.engine.loading import load
from service.engine.repertoire import Repertoire
from service.engine.sampler import Sampler
from service.engine.switchboard import Switchboard
from service.engine.turnover import Turnover
from service.engine.watching import Wanted
from service.errors import FoldserveError
from service.plan import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.batching.job import Part
    from service.engine.board import Board
    from service.engine.control import Control
    from service.engine.linked_job import LinkedJob
    from service.engine.loading import Loaded
    from service.engine.selection import Selection
    from service.inspection.notices import Notices
    from service.settings import Settings
    from service.store.model_store import StoredModel
    from service.telemetry import Telemetry

log = logging.getLogger("foldserve.engine")

_HEARTBEAT_S = 0.25


class Engine:
    """Loads what is selected, then answers over its links until it is told to stop."""

    def __init__(
        self,
        selection: Selection,
        settings: Settings,
        control: Control,
        board: Board,
        telemetry: Telemetry,
        notices: Notices | None = None,
    ) -> None:
        """`notices`: where the drift of live rows is told; None: it is not looked at."""
        self._selection = selection
        self._settings = settings
        self._control = control
        self._board = board
        self._telemetry = telemetry
        self._queue: Queue[LinkedJob] = Queue(settings.limits)
        self._sampler = Sampler(settings.drift_share, notices, telemetry)
        self._examiner = Examiner(self._queue, self._reply, telemetry)
        self._repertoire = Repertoire()
        self._turnover = Turnover(
            self._load,
            selection,
            Acceptance(selection, _baselines(settings)),
            self._repertoire,
            self._sampler,
            self._examiner,
            self._queue,
            control,
        )
        self._switchboard = Switchboard(control, self._queue, self._repertoire.facts, self._turnover.obey)
        self._switchboard.wake_for(self._turnover.fileno())

    def run(self) -> None:
        """Load, then serve; raises what a model or a setting is refused for."""
        self._load_models()
        # A full collection with torch loaded stops everything for a tenth of a second.
        gc.collect()
        gc.freeze()
        self._control.send(Message(Kind.READY))
        patience_s = 0.0
        while not self._switchboard.is_done:
            self._board.engine.beat()
            self._switchboard.hear(patience_s)
            has_more = self._turnover.step()  # of a change; requests go on in between
            patience_s = self._step()
            if has_more:
                patience_s = 0.0
        self._switchboard.close()
        self._turnover.close()

    @property
    def is_loading(self) -> bool:
        """Whether a version is being loaded, which nobody can stop."""
        return self._turnover.is_loading

    # --- loading

    def _load_models(self) -> None:
        gc.freeze()  # what is imported stays; the collections while loading need not look at it
        for stored, fingerprint in self._selection.at_start():
            try:
                self._turnover.enter(self._load(stored), fingerprint)
            except FoldserveError as refused:
                if not self._selection.is_forgiving:
                    raise
                log.error("%s is served no more: %s", stored, refused)  # noqa: TRY400 - it is written for people

    def _load(self, stored: StoredModel) -> Loaded:
        """Make a version ready, on whatever thread; raises what it is refused for."""
        settings = self._settings
        chosen = device.choose(settings.device)
        device.set_threads(settings.threads)  # plans that are tuned change it
        return load(
            stored,
            chosen,
            precision=None if settings.precision == "manifest" else settings.precision,
            max_batch=settings.max_batch or None,
            threads=settings.threads,
            tune=settings.tune,
            thresholds=settings.thresholds,
            watch=self._wanted(),
        )

    def _wanted(self) -> Wanted | None:
        """How live rows are looked at."""
        chosen = self._settings
        if chosen.drift == "off" or not self._sampler.is_on:
            return None
        return Wanted(chosen.drift, chosen.drift_threshold, _baselines(chosen))

    # --- serving

    def _step(self) -> float:
        """Run the next batch, if there is one now; how long the engine may then wait for more."""
        decision = self._queue.next(time.monotonic())
        for job in decision.dropped:
            self._drop(job)
        if decision.run:
            started = time.monotonic()
            self._run(decision.run)
            self._examiner.work(time.monotonic() - started)
            self._sampler.work(busy=True)
            return 0.0
        self._switchboard.flush()
        self._board.engine.rows = 0
        if self._examiner.work():
            return 0.0
        if self._sampler.work(busy=decision.wait_s is not None):
            return 0.0
        return _HEARTBEAT_S if decision.wait_s is None else min(decision.wait_s, _HEARTBEAT_S)

    def _run(self, batch: Sequence[Part[LinkedJob]]) -> None:
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
        self._board.engine.beat()
        if part.job.answered == part.job.rows:  # and its run may belong to somebody else by now
            return
        if part.job.is_dead(time.monotonic()):
            self._queue.withdraw(part.job)
            self._drop(part.job)
        else:
            self._run([part])

    def _drop(self, job: LinkedJob) -> None:
        self._reply(job, Outcome.LATE)

    def _reply(self, job: LinkedJob, outcome: Outcome) -> None:
        self._switchboard.reply(job, outcome)

    def _answer(self, batch: Sequence[Part[LinkedJob]]) -> None:
        model, started = batch[0].job.lane.model, time.monotonic()
        inputs = [part.job.inputs[part.start : part.stop] for part in batch]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        self._board.engine.rows = len(rows)
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


def _baselines(settings: Settings) -> Path | None:
    """Where they lie if not beside the weights."""
    return Path(settings.baselines) if settings.baselines else None
