"""The engine: the one thread that owns the device, loads the models and runs the batches."""

from __future__ import annotations

import gc
import logging
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.batching.batcher import why_dropped
from service.batching.job import Answer
from service.batching.policy import is_late
from service.engine import card
from service.engine.loading import load
from service.engine.protocol import Message, ModelLoaded, Ready, Stopped
from service.errors import EngineFailed, InvalidConfiguration
from service.plan import device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.batching.batcher import Batcher
    from service.batching.job import Job, ModelKey
    from service.plan.plan import Plan
    from service.settings import Settings
    from service.store.model_store import ModelStore, StoredModel
    from service.telemetry import Telemetry

log = logging.getLogger("foldserve.engine")


class Engine:
    """Runs jobs from the batcher until the batcher is closed and empty; never raises out of its thread.

    What becomes of it is told to `announce`, from the engine's thread: a card per model, then
    `Ready`, at the end `Stopped`.
    """

    def __init__(
        self,
        store: ModelStore,
        settings: Settings,
        batcher: Batcher,
        telemetry: Telemetry,
        announce: Callable[[Message], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._batcher = batcher
        self._telemetry = telemetry
        self._announce = announce
        self._plans: dict[ModelKey, Plan] = {}
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)

    def start(self) -> None:
        """Start loading, then serving, on the engine's own thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _live(self) -> None:
        try:
            self._load_models()
            self._announce(Ready())
            while batch := self._batcher.next_batch():
                self._run(batch)
        except Exception as failure:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            self._batcher.fail_all(EngineFailed("the engine stopped"))
            self._announce(Stopped(failure))
        else:
            self._announce(Stopped())

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
            tune=self._settings.tune,
        )
        key = loaded.card.key
        self._plans[key] = loaded.plan
        self._batcher.admit(key, loaded.plan.max_batch)
        self._announce(ModelLoaded(card.write(loaded.card)))

    def _run(self, batch: Sequence[Job]) -> None:
        """Run one batch; where it fails, run every job of it alone, so that a bad one fails alone."""
        try:
            self._answer(batch)
        except Exception:
            log.exception("a batch of %d jobs failed", len(batch))
            if len(batch) == 1:
                batch[0].reply(EngineFailed("the rows could not be computed"))
                return
            for job in batch:
                if job.cancelled or is_late(job, time.monotonic()):
                    job.reply(why_dropped(job))
                else:
                    self._run([job])

    def _answer(self, batch: Sequence[Job]) -> None:
        key, started = batch[0].key, time.monotonic()
        # A copy even of one job's rows: they may be a read-only, unaligned view of a body.
        rows = np.concatenate([job.rows for job in batch])
        answers = self._plans[key](torch.from_numpy(rows)).numpy()
        seconds = time.monotonic() - started
        self._batcher.observe(len(rows), seconds)
        self._telemetry.batch(key.model, key.version, len(rows))
        first = 0
        for job in batch:
            own = answers[first : first + len(job)]
            first += len(job)
            job.reply(Answer(own, started - job.arrived, seconds, len(rows)))
