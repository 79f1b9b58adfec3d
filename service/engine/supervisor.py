"""The supervisor: keeps the engine and the workers running, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Literal

from service.engine import board
from service.engine.backoff import Backoff
from service.engine.child import REFUSED, Child, Order
from service.engine.control import Kind, Message
from service.engine.poller import Poller
from service.engine.roster import Roster
from service.engine.selection import Selection
from service.engine.watch import TICK_S, Watch
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from service.engine.card import ModelCard
    from service.engine.placement import Placement
    from service.keyring import Keyring
    from service.settings import Settings
    from service.telemetry import Telemetry

log = logging.getLogger("foldserve")

_ENGINE, _WORKER = "service.engine", "service.web"
_GRACE_S = 5.0


class Supervisor:
    """One engine and a worker per listening socket, from `run` until a signal or a failure ends them.

    All processes count in the folder `counts`. `greet` is called when everything is ready for the first time.
    """

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        listening: Sequence[socket.socket],
        placement: Placement,
        telemetry: Telemetry,
        counts: Path,
        greet: Callable[[list[ModelCard]], None],
    ) -> None:
        self._settings = settings
        self._keyring = keyring
        self._listening = list(listening)
        self._placement = placement
        self._telemetry = telemetry
        self._counts = counts
        self._greet = greet
        self._board_descriptor = board.create(len(listening))
        self._board = board.Board(self._board_descriptor)
        self._board.supervisor.pid = os.getpid()
        self._poller = Poller(Selection(ModelStore(settings.model_store), settings))
        self._roster = Roster(self._board, settings.arena_slots, telemetry, self._greet_once)
        # The mutable state besides: whether everything was ready once, whether the end has begun, and how.
        self._has_greeted = False
        self._ending = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Serve until the end; the answer is the exit status."""
        workers = [asyncio.create_task(self._keep_worker(number)) for number in range(len(self._listening))]
        engine = asyncio.create_task(self._keep_engine())
        besides = [asyncio.create_task(self._watch())]
        if self._settings.model_control == "poll":
            self._roster.changes.witness = self._poller.hear
            besides.append(asyncio.create_task(self._poll()))
        for task in (*workers, engine, *besides):
            task.add_done_callback(self._require)
        await self._ending.wait()
        await self._end(workers, engine)
        for task in besides:
            task.cancel()
        return self._status

    def signalled(self) -> None:
        """A signal to end: the first time in order, the second time at once."""
        if self._ending.is_set():
            self._status = 1
            for child in self._roster.everybody():
                child.kill()
        self._ending.set()

    async def _end(self, workers: Sequence[asyncio.Task[None]], engine: asyncio.Task[None]) -> None:
        """The workers answer what was accepted; the engine computes it and ends once they have."""
        roster = self._roster
        for listening in self._listening:
            listening.close()
        roster.changes.end()
        for child in roster.everybody():
            child.tell(Message(Kind.DRAIN))
        if roster.engine and not roster.is_ready:
            roster.engine.kill()  # it would load for nobody
        await _within(self._settings.drain_timeout_s + _GRACE_S, workers, roster.everybody)
        await _within(_GRACE_S, [engine], roster.everybody)

    def _greet_once(self) -> None:
        is_complete = self._roster.is_ready and len(self._roster.up) == len(self._listening)
        if is_complete and not self._has_greeted:
            self._has_greeted = True
            self._greet(self._roster.cards())

    # --- the living

    async def _keep_engine(self) -> None:
        backoff = Backoff(self._settings.max_restarts)
        while not self._ending.is_set():
            order = self._order(0, self._placement.engine_cores)
            if self._settings.model_control != "none":
                order = order.model_copy(update={"served": self._roster.served})
            engine = await self._started(_ENGINE, order, self._board_descriptor)
            self._roster.enter_engine(engine)
            status, did_work = await engine.ended(), self._roster.is_ready
            self._roster.strike_engine()
            self._poller.forget()
            if self._ending.is_set():
                return
            if (
                status == REFUSED and not self._has_greeted
            ):  # what was served once may be refused for a moment
                self._fail()
                return
            log.error("the engine ended with status %d", status)
            await self._pause("engine", backoff, did_work=did_work)

    async def _keep_worker(self, number: int) -> None:
        backoff = Backoff(self._settings.max_restarts)
        while not self._ending.is_set():
            order = self._order(number, self._placement.worker_cores)
            order = order.model_copy(update={"keys": self._keyring.keys()})
            socket_descriptor = self._listening[number].fileno()
            worker = await self._started(_WORKER, order, self._board_descriptor, socket_descriptor)
            self._roster.enter_worker(number, worker)
            status, did_work = await worker.ended(), number in self._roster.up
            self._roster.strike_worker(number)
            if not self._ending.is_set():
                log.error("worker %d ended with status %d", number, status)
                await self._pause("worker", backoff, did_work=did_work)

    async def _started(self, module: str, order: Order, *descriptors: int) -> Child:
        child = await Child.start(module)
        if self._ending.is_set():  # while it was started: it is not needed, and the sockets are closed
            child.kill()
        else:
            child.tell(order.message(descriptors))
        return child

    def _order(self, number: int, cores: list[int] | None) -> Order:
        settings = self._settings
        if self._roster.log_level:  # what is asked for while the service runs holds for replacements, too
            settings = settings.model_copy(update={"log_level": self._roster.log_level})
        return Order(settings=settings, number=number, counts=self._counts, cores=cores)

    # --- the dead and the silent

    async def _pause(self, kind: Literal["engine", "worker"], backoff: Backoff, *, did_work: bool) -> None:
        pause_s = backoff.pause_s(did_work=did_work)
        if pause_s is None:
            who = "the engine" if kind == "engine" else "a worker"
            log.error("%s died too often, and is not started again", who)
            self._fail()
            return
        self._telemetry.restarted(kind)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause_s)

    async def _watch(self) -> None:
        """Kill what lives and does nothing, so that it is replaced."""
        watch = Watch(self._board, self._settings.hang_timeout_s, self._settings.start_timeout_s)
        while True:
            await asyncio.sleep(TICK_S)
            silent = watch.look()
            if silent.engine and self._roster.engine:
                log.error("the engine %s", watch.said_of(self._board.engine))
                self._roster.engine.kill()
            for number in silent.workers:
                log.error("worker %d %s", number, watch.said_of(self._board.workers[number]))
                self._roster.kill_worker(number)

    async def _poll(self) -> None:
        """Have changes of the store made."""
        while True:
            await asyncio.sleep(self._settings.poll_s)
            if self._roster.is_ready:
                for change in await asyncio.to_thread(self._poller.look):
                    self._roster.changes.ask(change)

    def _require(self, task: asyncio.Task[None]) -> None:
        """End the service where a part of this process itself failed: nobody would be replaced any more."""
        failed = None if task.cancelled() else task.exception()
        if failed:
            log.error("the supervisor failed", exc_info=failed)
            self._fail()

    def _fail(self) -> None:
        self._status = 1
        self._ending.set()


async def _within(
    seconds: float, tasks: Sequence[asyncio.Task[None]], children: Callable[[], Iterable[Child]]
) -> None:
    """Wait for the tasks; those children that run when the time is over are killed."""
    _, late = await asyncio.wait(tasks, timeout=seconds)
    if late:
        for child in children():
            child.kill()
        await asyncio.wait(late)
