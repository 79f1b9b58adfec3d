"""The turnover: versions are loaded beside those that are served, take over, and those go when idle."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from service.engine import card
from service.engine.change import Change, Settled
from service.engine.control import Kind, Message
from service.errors import EngineFailed, FoldserveError, UnknownModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from service.batching.queue import Queue
    from service.engine.acceptance import Acceptance, Accepted
    from service.engine.card import ModelCard
    from service.engine.control import Control
    from service.engine.examiner import Examiner
    from service.engine.linked_job import LinkedJob
    from service.engine.loading import Loaded
    from service.engine.repertoire import Entry, Repertoire
    from service.engine.sampler import Sampler
    from service.engine.selection import Selection
    from service.inspection.recent_rows import Snapshot
    from service.plan.plan import Plan
    from service.store.model_store import Fingerprint, StoredModel

log = logging.getLogger("foldserve.engine")


@dataclass
class _Asked:
    """A change under way; the loading thread writes into it until it says that it is done."""

    ticket: int
    change: Change
    fresh: list[tuple[Loaded, Fingerprint]] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    recent: dict[int, Snapshot | None] = field(default_factory=dict)
    accepted: Accepted | None = None
    settled: Settled | None = None


class Turnover:
    """Makes one change after the other: loads on a thread of its own, all else on the engine's.

    `load` makes a version ready to be served. A change is made as a whole or not at all.
    """

    def __init__(
        self,
        load: Callable[[StoredModel], Loaded],
        selection: Selection,
        acceptance: Acceptance,
        repertoire: Repertoire,
        sampler: Sampler,
        examiner: Examiner,
        queue: Queue[LinkedJob],
        control: Control,
    ) -> None:
        self._load = load
        self._selection = selection
        self._acceptance = acceptance
        self._repertoire = repertoire
        self._sampler = sampler
        self._examiner = examiner
        self._queue = queue
        self._control = control
        self._done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # The mutable state: what was asked for, the first of it under way, and the steps that are left of
        # its end.
        self._asked: deque[_Asked] = deque()
        self._steps: Iterator[None] = iter(())

    @property
    def is_loading(self) -> bool:
        """Whether a change is under way, on a thread that nobody can stop."""
        return bool(self._asked)

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
        self._asked.append(_Asked(message.number, Change.model_validate_json(message.text)))
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
        try:
            os.eventfd_read(self._done)
            self._steps = self._finish(self._asked[0])
        except BlockingIOError:
            pass
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
        threading.Thread(target=self._work, args=(asked, served), name="loader", daemon=True).start()

    def _work(self, asked: _Asked, served: Sequence[Entry]) -> None:
        try:
            if asked.change.action == "load":
                self._prepare(asked, served)
            elif asked.change.action == "accept":
                facts = self._repertoire.facts
                those = [(entry, facts[entry.number]) for entry in served]
                asked.accepted = self._acceptance.accepted(asked.change, those, asked.recent)
            else:
                _require_served(asked.change.model, served)
            asked.settled = Settled(change=asked.change)
        except FoldserveError as refused:
            asked.settled = Settled.refused(asked.change, refused)
        except Exception:  # noqa: BLE001 - the log tells the whole of it
            asked.settled = _failed(asked.change)
        finally:
            os.eventfd_write(self._done, 1)

    def _prepare(self, asked: _Asked, served: Sequence[Entry]) -> None:
        """Load what is served in no version, or in another state of its files."""
        current = {(entry.version, entry.fingerprint): entry.number for entry in served}
        for stored, fingerprint in self._selection.of(asked.change.model):
            number = current.get((stored.version, fingerprint))
            if number is None:
                asked.fresh.append((self._load(stored), fingerprint))
            else:
                asked.kept.add(number)

    # --- on the engine's thread again

    def _finish(self, asked: _Asked) -> Iterator[None]:
        """Warm up, a batch at a time so that others run in between, then take over in one go."""
        assert asked.settled is not None  # noqa: S101 - for the type checker; the thread says so last
        if asked.settled.refusal is None:
            yield from _warmed(asked)
        if asked.accepted:
            self._use(asked.accepted)
        elif asked.settled.refusal is None:
            self._take_over(asked)
        _log(asked)
        self._asked.popleft()
        self._control.send(Message(Kind.SETTLED, asked.ticket, asked.settled.packed()))
        if self._asked:
            self._begin()

    def _use(self, accepted: Accepted) -> None:
        """Compare live rows with a new baseline, and samples, of which the card tells the workers."""
        number, baseline = accepted.number, accepted.baseline
        self._sampler.accept(number, baseline)
        self._tell(number, self._repertoire.renew(number, baseline.of_rows(), accepted.fingerprint))

    def _take_over(self, asked: _Asked) -> None:
        old = [entry.number for entry in self._repertoire.served(asked.change.model)]
        for loaded, fingerprint in asked.fresh:
            self.enter(loaded, fingerprint)
        for number in old:
            if number not in asked.kept:
                self._repertoire.withdraw(number)
                self._sampler.end(number)
                self._control.send(Message(Kind.DROP, number))


def _require_served(model: str, served: Sequence[Entry]) -> None:
    if not served:
        raise UnknownModel(f"no model {model!r} is served")


def _warmed(asked: _Asked) -> Iterator[None]:
    """Threads and what oneDNN keeps for a thread belong to the one that serves."""
    try:
        for loaded, _ in asked.fresh:
            for rows in _first_rows(loaded.plan, loaded.card.facts.manifest.input.shape):
                yield
                loaded.plan(rows)
    except Exception:  # noqa: BLE001 - what is served must not end with it
        asked.settled = _failed(asked.change)


def _first_rows(plan: Plan, row: Sequence[int]) -> Iterator[Tensor]:
    for dtype in (torch.uint8, torch.float32):
        for bucket in plan.buckets():
            yield torch.zeros(bucket, *row, dtype=dtype)


def _failed(change: Change) -> Settled:
    """By what is no error of ours, which is being handled."""
    log.exception("%s", _not_made(change))
    what = "rows" if change.action == "accept" else "model"
    failed = EngineFailed(f"the {what} could not be {change.action}ed; the cause is in the log")
    return Settled.refused(change, failed)


def _log(asked: _Asked) -> None:
    action, model = asked.change.action, asked.change.model
    if asked.settled and asked.settled.refusal:
        level = logging.WARNING if action == "accept" else logging.ERROR
        log.log(level, "%s: %s", _not_made(asked.change), asked.settled.detail)
    elif asked.accepted:
        log.info("model %r: %d live rows are its baseline now", model, asked.accepted.baseline.rows)
    else:
        level = logging.INFO if asked.fresh or action == "unload" else logging.DEBUG
        log.log(level, "model %r was %sed", model, action)


def _not_made(change: Change) -> str:
    what = "the live rows of" if change.action == "accept" else "model"
    return f"{what} {change.model!r} could not be {change.action}ed"
