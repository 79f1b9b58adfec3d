"""The engine: the one process that owns a device, loads the models and runs the batches.

One thread does all of it. Between two batches it hears what the workers rang, without waiting; while nothing
waits, it sleeps until somebody rings.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.batching.queue import Queue
from service.engine import card
from service.engine.control import Kind, Message
from service.engine.doorbell import Outcome
from service.engine.loading import load
from service.engine.sampler import Sampler
from service.engine.switchboard import Switchboard
from service.engine.watching import Wanted
from service.errors import InvalidConfiguration
from service.plan import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.batching.job import ModelKey, Part
    from service.engine.board import Board
    from service.engine.card import ModelFacts
    from service.engine.control import Control
    from service.engine.linked_job import LinkedJob
    from service.inspection.notices import Notices
    from service.plan.plan import Plan
    from service.settings import Settings
    from service.store.model_store import ModelStore, StoredModel
    from service.telemetry import Telemetry

log = logging.getLogger("foldserve.engine")

_HEARTBEAT_S = 0.25


class Engine:
    """Loads what the settings name, then answers over its links until it is told to stop."""

    def __init__(
        self,
        store: ModelStore,
        settings: Settings,
        control: Control,
        board: Board,
        telemetry: Telemetry,
        notices: Notices | None = None,
    ) -> None:
        """`notices`: where the drift of live rows is told; None: it is not looked at."""
        self._store = store
        self._settings = settings
        self._control = control
        self._board = board
        self._telemetry = telemetry
        self._queue: Queue[LinkedJob] = Queue(settings.limits)
        self._plans: dict[ModelKey, Plan] = {}
        self._models: list[ModelFacts] = []
        self._switchboard = Switchboard(control, self._queue, self._models)
        self._sampler = Sampler(settings.drift_share, notices, telemetry)

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
            patience_s = self._step()
        self._switchboard.close()

    # --- loading

    def _load_models(self) -> None:
        gc.freeze()  # what is imported stays; the collections while loading need not look at it
        chosen = device.choose(self._settings.device)
        for stored in self._chosen_models():
            self._load(stored, chosen)

    def _chosen_models(self) -> list[StoredModel]:
        names = self._settings.model_names or self._store.names()
        if not names:
            raise InvalidConfiguration("the model store holds no model")
        latest = self._settings.versions == "latest"
        newest = {name: self._store.open(name) for name in names}  # raises where there is no version
        if latest:
            return list(newest.values())
        return [self._store.open(name, version) for name in names for version in self._store.versions(name)]

    def _load(self, stored: StoredModel, on: torch.device) -> None:
        precision = None if self._settings.precision == "manifest" else self._settings.precision
        device.set_threads(self._settings.threads)  # plans that are tuned change it
        loaded = load(
            stored,
            on,
            precision=precision,
            max_batch=self._settings.max_batch or None,
            threads=self._settings.threads,
            tune=self._settings.tune,
            watch=self._wanted(),
        )
        key = loaded.card.key
        self._plans[key] = loaded.plan
        self._queue.admit(key, loaded.plan.max_batch)
        descriptor = card.write(loaded.card)
        self._control.send(Message(Kind.CARD, len(self._models), descriptors=(descriptor,)))
        os.close(descriptor)
        self._models.append(loaded.card.facts)
        self._sampler.begin(key, loaded.watching)

    def _wanted(self) -> Wanted | None:
        """How live rows are looked at."""
        chosen = self._settings
        if chosen.drift == "off" or not self._sampler.is_on:
            return None
        return Wanted(
            chosen.drift, chosen.drift_threshold, Path(chosen.baselines) if chosen.baselines else None
        )

    # --- serving

    def _step(self) -> float:
        """Run the next batch, if there is one now; how long the engine may then wait for more."""
        decision = self._queue.next(time.monotonic())
        for job in decision.dropped:
            self._drop(job)
        if decision.run:
            self._run(decision.run)
            self._sampler.work(busy=True)
            return 0.0
        self._switchboard.flush()
        self._board.engine.rows = 0
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
        self._switchboard.reply(job, Outcome.LATE)

    def _answer(self, batch: Sequence[Part[LinkedJob]]) -> None:
        key, started = batch[0].job.lane.key, time.monotonic()
        inputs = [part.job.inputs[part.start : part.stop] for part in batch]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        self._board.engine.rows = len(rows)
        answers = self._plans[key](torch.from_numpy(rows)).numpy()
        seconds = time.monotonic() - started
        first = 0
        for part in batch:
            size = part.stop - part.start
            part.job.outputs[part.start : part.stop] = answers[first : first + size]
            first += size
            self._count(part, started, seconds, len(rows))
        # Before the replies go: from then on the rows' memory may be somebody else's.
        self._sampler.see(key, rows, answers, batch)
        # Before anybody hears of it: who has an answer may ask at once how many batches there were.
        self._telemetry.batch(key.model, key.version, len(rows))
        self._switchboard.flush()

    def _require_health(self, job: LinkedJob) -> None:
        """Raise where rows that are surely good fail, too: then only a new process helps the device."""
        self._plans[job.lane.key](torch.zeros(1, *job.inputs.shape[1:]))

    def _count(self, part: Part[LinkedJob], started: float, seconds: float, batch_rows: int) -> None:
        job = part.job
        if not job.answered:
            job.queue_s = started - job.arrived
        job.answered += part.stop - part.start
        job.compute_s += seconds
        job.batch_rows += batch_rows
        if job.answered == job.rows:
            self._switchboard.reply(job, Outcome.ANSWERED)
