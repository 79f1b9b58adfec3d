"""The turnover: versions are loaded beside those that are served, take over, and those go when idle."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from service.engine import card
from service.engine.change import Change
from service.engine.control import Kind, Message
from service.engine.undertaking import Undertaking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from service.batching.queue import Queue
    from service.engine.acceptance import Accepted
    from service.engine.card import ModelCard
    from service.engine.control import Control
    from service.engine.examiner import Examiner
    from service.engine.linked_job import LinkedJob
    from service.engine.loading import Loaded
    from service.engine.preparation import Preparation
    from service.engine.repertoire import Entry, Repertoire
    from service.engine.sampler import Sampler
    from service.plan.plan import Plan
    from service.store.model_store import Fingerprint


class Turnover:
    """Makes one change after the other: prepares it on a thread of its own, does all else on the engine's.

    A change is made as a whole or not at all.
    """

    def __init__(
        self,
        preparation: Preparation,
        repertoire: Repertoire,
        sampler: Sampler,
        examiner: Examiner,
        queue: Queue[LinkedJob],
        control: Control,
    ) -> None:
        self._preparation = preparation
        self._repertoire = repertoire
        self._sampler = sampler
        self._examiner = examiner
        self._queue = queue
        self._control = control
        self._done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # The mutable state: what was asked for, the first of it under way, and the steps that are left of
        # its end.
        self._asked: deque[Undertaking] = deque()
        self._steps: Iterator[None] = iter(())

    @property
    def is_loading(self) -> bool:
        """Whether a change is under way, or was given up, on a thread that nobody can stop."""
        return bool(self._asked) or self._preparation.is_stalled

    def fileno(self) -> int:
        """The descriptor that says when `step` has something to do."""
        return self._done

    def close(self) -> None:
        """No step follows; a thread that still loads keeps the descriptor that it will write to."""
        if not self.is_loading:
            os.close(self._done)

    def obey(self, message: Message) -> None:
        """Make a change, when those before it are made; or let go of a model that no worker uses any more."""
        if message.kind is Kind.RETIRE:
            self._queue.dismiss(message.number)
            self._examiner.end(message.number)
            self._repertoire.retire(message.number)
            return
        self._asked.append(Undertaking(message.number, Change.model_validate_json(message.text)))
        if len(self._asked) == 1:
            self._begin()

    def enter(self, loaded: Loaded, fingerprint: Fingerprint) -> None:
        """Let a version be served from now on; workers take it for the one of this number and above."""
        number = self._repertoire.add(loaded, fingerprint)
        self._sampler.begin(number, loaded.card.key, loaded.watching)
        self._examiner.begin(number, loaded.card.key, loaded.watching)
        self._queue.admit(number, loaded.plan.max_batch)
        self._tell(number, loaded.card)

    def step(self) -> bool:
        """Do a little of what a change needs on this thread; whether there is more."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._done)
        asked = self._asked[0] if self._asked else None
        if asked and not asked.is_ending and (asked.settled or self._preparation.is_late(asked)):
            if asked.settled:
                asked.thread.join()  # all that it has left is to say so
            else:
                asked = self._asked[0] = self._preparation.given_up(asked)
            asked.is_ending = True
            self._steps = self._finish(asked)
        return next(self._steps, "over") is None

    def _tell(self, number: int, told: ModelCard) -> None:
        descriptor = card.write(told)
        self._control.send(Message(Kind.CARD, number, descriptors=(descriptor,)))
        os.close(descriptor)

    # --- on the thread that loads

    def _begin(self) -> None:
        asked = self._asked[0]
        served = self._repertoire.served(asked.change.model)
        if asked.change.action == "accept":
            asked.recent = {entry.number: self._sampler.recent(entry.number) for entry in served}
        asked.since = time.monotonic()
        asked.thread = threading.Thread(target=self._work, args=(asked, served), name="loader", daemon=True)
        asked.thread.start()

    def _work(self, asked: Undertaking, served: Sequence[Entry]) -> None:
        try:
            self._preparation.prepare(asked, served)
        finally:
            os.eventfd_write(self._done, 1)

    # --- on the engine's thread again

    def _finish(self, asked: Undertaking) -> Iterator[None]:
        """Warm up, a batch at a time so that others run in between, then take over in one go."""
        assert asked.settled is not None  # noqa: S101 - for the type checker; the thread says so last
        if asked.settled.refusal is None:
            yield from _warmed(asked)
        if asked.accepted:
            self._use(asked.accepted)
        elif asked.settled.refusal is None:
            self._take_over(asked)
        asked.log_end()
        self._asked.popleft()
        self._control.send(Message(Kind.SETTLED, asked.ticket, asked.settled.packed()))
        if self._asked:
            self._begin()

    def _use(self, accepted: Accepted) -> None:
        """Compare live rows with a new baseline, and samples, of which the card tells the workers."""
        number, baseline = accepted.number, accepted.baseline
        self._sampler.accept(number, baseline)
        self._tell(number, self._repertoire.renew(number, baseline.of_rows(), accepted.fingerprint))

    def _take_over(self, asked: Undertaking) -> None:
        old = [entry.number for entry in self._repertoire.served(asked.change.model)]
        for loaded, fingerprint in asked.fresh:
            self.enter(loaded, fingerprint)
        for number in old:
            if number not in asked.kept:
                self._repertoire.withdraw(number)
                self._sampler.end(number)
                self._control.send(Message(Kind.DROP, number))


def _warmed(asked: Undertaking) -> Iterator[None]:
    """Threads and what oneDNN keeps for a thread belong to the one that serves."""
    try:
        for loaded, _ in asked.fresh:
            for rows in _first_rows(loaded.plan, loaded.card.facts.manifest.input.shape):
                yield
                loaded.plan(rows)
    except Exception:  # noqa: BLE001 - what is served must not end with it
        asked.fail()


def _first_rows(plan: Plan, row: Sequence[int]) -> Iterator[Tensor]:
    for dtype in (torch.uint8, torch.float32):
        for bucket in plan.buckets():
            yield torch.zeros(bucket, *row, dtype=dtype)
