"""The changes under way, as the supervisor sees them: who asked, and who has yet to hear of their end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from service.engine.change import Change, Settled
from service.engine.control import Kind, Message
from service.errors import Draining, EngineFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from service.engine.child import Child
    from service.errors import FoldserveError
    from service.telemetry import Telemetry


class Changes:
    """Passes a change on to the engine, and its end to all workers, once they know what is served now.

    `workers` are those that run. `tell_engine` says whether there is one to be told.
    """

    def __init__(
        self,
        workers: Callable[[], Collection[Child]],
        tell_engine: Callable[[Message], bool],
        telemetry: Telemetry,
    ) -> None:
        self._workers = workers
        self._tell_engine = tell_engine
        self._telemetry = telemetry
        self._tickets = itertools.count(1)
        # The mutable state: who asked for what, who must still pass the fence behind its end, and who still
        # uses a model that was dropped.
        self._asked: dict[int, tuple[Change, Child | None, int]] = {}
        self._fences: dict[int, tuple[Settled, set[Child]]] = {}
        self._users: dict[int, set[Child]] = {}
        self._refusal: FoldserveError | None = None
        self.witness: Callable[[Settled], None] | None = None
        """Who hears of every end besides."""

    def ask(self, change: Change, asker: Child | None = None, number: int = 0) -> None:
        """Have a change made; whoever asked is told its end under `number`."""
        ticket = next(self._tickets)
        self._asked[ticket] = change, asker, number
        if self._refusal:
            self._tell(ticket, Settled.refused(change, self._refusal))
        elif not self._tell_engine(Message(Kind.ASK, ticket, change.packed())):
            self._tell(ticket, Settled.refused(change, _gone()))

    def end(self) -> None:
        """Refuse all that is under way and all that comes: the service ends."""
        self._refusal = Draining("the service is shutting down", retry_after_s=5)
        self._refuse_all(self._refusal)

    def hear_engine(self, message: Message) -> None:
        """A model was dropped, or a change has come to its end."""
        users = set(self._workers())
        if message.kind is Kind.DROP:
            self._users[message.number] = users
            for worker in users:
                worker.tell(message)
            self._retire_unused()
        elif message.number in self._asked:
            self._fences[message.number] = Settled.model_validate_json(message.text), users
            for worker in users:
                worker.tell(Message(Kind.FENCE, message.number))
            self._open_fences()

    def hear_worker(self, worker: Child, message: Message) -> None:
        """It asks for a change, has passed a fence, or does not use a dropped model any more."""
        if message.kind is Kind.ASK:
            self.ask(Change.model_validate_json(message.text), worker, message.number)
        elif message.kind is Kind.FENCE and message.number in self._fences:
            self._fences[message.number][1].discard(worker)
            self._open_fences()
        elif message.kind is Kind.IDLE and message.number in self._users:
            self._users[message.number].discard(worker)
            self._retire_unused()

    def strike_worker(self, worker: Child) -> None:
        """It has ended: it uses nothing, and nobody waits for it."""
        for users in (*self._users.values(), *(late for _, late in self._fences.values())):
            users.discard(worker)
        self._asked = {
            ticket: (change, None if asker is worker else asker, number)
            for ticket, (change, asker, number) in self._asked.items()
        }
        self._retire_unused()
        self._open_fences()

    def strike_engine(self) -> None:
        """It has ended, and what it was asked with it."""
        self._users.clear()
        self._refuse_all(_gone())

    def _refuse_all(self, error: FoldserveError) -> None:
        self._fences.clear()
        for ticket, (change, _, _) in list(self._asked.items()):
            self._tell(ticket, Settled.refused(change, error))

    def _open_fences(self) -> None:
        for ticket in [ticket for ticket, (_, late) in self._fences.items() if not late]:
            settled, _ = self._fences.pop(ticket)
            self._tell(ticket, settled)

    def _retire_unused(self) -> None:
        for number in [number for number, users in self._users.items() if not users]:
            del self._users[number]
            self._tell_engine(Message(Kind.RETIRE, number))

    def _tell(self, ticket: int, settled: Settled) -> None:
        _, asker, number = self._asked.pop(ticket)
        self._telemetry.model_change(settled.known_model, settled.change.action, settled.outcome)
        if self.witness:
            self.witness(settled)
        for worker in self._workers():
            worker.tell(Message(Kind.SETTLED, number if worker is asker else 0, settled.packed()))


def _gone() -> EngineFailed:
    return EngineFailed("the engine stopped")
