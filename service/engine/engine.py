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

from service.batching.queue import Queue
from service.engine.acceptance import Acceptance
from service.engine.control import Kind, Message
from service.engine.doorbell import Outcome
from service.engine.examiner import Examiner
from service.engine.loading import load
from service.engine.preparation import Preparation
from service.engine.repertoire import Repertoire
from service.engine.runner import Runner
from service.engine.sampler import Sampler
from service.engine.stalled import or_end
from service.engine.switchboard import Switchboard
from service.engine.turnover import Turnover
from service.engine.watching import Wanted
from service.errors import FoldserveError
from service.plan import device

if TYPE_CHECKING:
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
        self._queue: Queue[LinkedJob] = Queue(settings.limits)
        self._sampler = Sampler(settings.drift_share, notices, telemetry)
        self._examiner = Examiner(self._queue, self._reply, telemetry)
        self._repertoire = Repertoire()
        acceptance = Acceptance(selection, _baselines(settings))
        preparation = Preparation(
            self._load, selection, acceptance, self._repertoire, settings.load_timeout_s
        )
        self._turnover = Turnover(
            preparation, self._repertoire, self._sampler, self._examiner, self._queue, control
        )
        self._switchboard = Switchboard(control, self._queue, self._repertoire.facts, self._turnover.obey)
        self._switchboard.wake_for(self._turnover.fileno())
        self._runner = Runner(
            self._queue, self._repertoire, self._switchboard, self._sampler, board.engine, telemetry
        )

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
        self._board.engine.begun_at = 0.0  # from here on each load has its own time
        gc.freeze()  # what is imported stays; the collections while loading need not look at it
        for stored, fingerprint in self._selection.at_start():
            try:
                with or_end(stored, self._settings.load_timeout_s):
                    loaded = self._load(stored)
                self._turnover.enter(loaded, fingerprint)
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
            self._reply(job, Outcome.LATE)
        if decision.run:
            started = time.monotonic()
            self._runner.run(decision.run)
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

    def _reply(self, job: LinkedJob, outcome: Outcome) -> None:
        self._switchboard.reply(job, outcome)


def _baselines(settings: Settings) -> Path | None:
    """Where they lie if not beside the weights."""
    return Path(settings.baselines) if settings.baselines else None
