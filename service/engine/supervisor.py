"""The supervisor: starts the engine and the workers, joins them, replaces the dead, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Literal

from service.engine import arena, board, card
from service.engine.backoff import Backoff
from service.engine.child import REFUSED, Child, Order
from service.engine.control import Kind, MalformedMessage, Message, close_all
from service.engine.watch import TICK_S, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from service.engine.card import ModelCard
    from service.engine.placement import Placement
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
        listening: Sequence[socket.socket],
        placement: Placement,
        telemetry: Telemetry,
        counts: Path,
        greet: Callable[[list[ModelCard]], None],
    ) -> None:
        self._settings = settings
        self._listening = list(listening)
        self._placement = placement
        self._telemetry = telemetry
        self._counts = counts
        self._greet = greet
        self._board_descriptor = board.create(len(listening))
        self._board = board.Board(self._board_descriptor)
        self._board.supervisor.pid = os.getpid()
        # The mutable state: who runs, what the engine has said, and whether the end has begun, and how.
        self._engine: Child | None = None
        self._workers: dict[int, Child] = {}
        self._up: set[int] = set()
        self._cards: dict[int, int] = {}
        self._is_ready = False
        self._has_greeted = False
        self._ending = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Serve until the end; the answer is the exit status."""
        keeping = [asyncio.create_task(self._keep_worker(number)) for number in range(len(self._listening))]
        engine = asyncio.create_task(self._keep_engine())
        watching = asyncio.create_task(self._watch())
        for task in (*keeping, engine, watching):
            task.add_done_callback(self._require)
        await self._ending.wait()
        for listening in self._listening:
            listening.close()
        for worker in self._workers.values():
            worker.tell(Message(Kind.DRAIN))
        if self._engine and not self._is_ready:
            self._engine.kill()  # it would load for nobody
        await self._within(self._settings.drain_timeout_s + _GRACE_S, keeping, self._workers.values)
        if self._engine:
            self._engine.tell(Message(Kind.DRAIN))
        await self._within(_GRACE_S, [engine], lambda: [self._engine] if self._engine else [])
        watching.cancel()
        return self._status

    def signalled(self) -> None:
        """A signal to end: the first time in order, the second time at once."""
        if self._ending.is_set():
            self._status = 1
            for child in self._children():
                child.kill()
        self._ending.set()

    # --- children

    async def _keep_engine(self) -> None:
        backoff = Backoff(self._settings.max_restarts)
        while not self._ending.is_set():
            order = self._order(0, self._placement.engine_cores)
            self._engine = await self._start(_ENGINE, order, (self._board_descriptor,))
            self._listen_to(self._engine, self._hear_engine)
            status = await self._engine.ended()
            self._lose_engine()
            if status == REFUSED and not self._ending.is_set():
                self._fail()
            elif not self._ending.is_set():
                log.error("the engine ended with status %d", status)
                await self._pause("engine", backoff)

    async def _keep_worker(self, number: int) -> None:
        backoff = Backoff(self._settings.max_restarts)
        while not self._ending.is_set():
            order = self._order(number, self._placement.worker_cores)
            descriptors = (self._board_descriptor, self._listening[number].fileno())
            worker = await self._start(_WORKER, order, descriptors)
            self._workers[number] = worker
            self._listen_to(worker, lambda message: self._hear_worker(number, message))
            self._introduce(number, worker)
            status = await worker.ended()
            self._lose_worker(number)
            if not self._ending.is_set():
                log.error("worker %d ended with status %d", number, status)
                await self._pause("worker", backoff)

    async def _start(self, module: str, order: Order, descriptors: tuple[int, ...]) -> Child:
        child = await Child.start(module)
        if self._ending.is_set():  # while it was started: it has not been told, and is not needed
            child.kill()
        else:
            child.tell(order.message(descriptors))
        return child

    def _order(self, number: int, cores: list[int] | None) -> Order:
        return Order(settings=self._settings, number=number, counts=self._counts, cores=cores)

    async def _pause(self, kind: Literal["engine", "worker"], backoff: Backoff) -> None:
        pause_s = backoff.pause_s()
        if pause_s is None:
            who = "the engine" if kind == "engine" else "a worker"
            log.error("%s died too often, and is not started again", who)
            self._fail()
            return
        self._telemetry.restarted(kind)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause_s)

    def _require(self, task: asyncio.Task[None]) -> None:
        """End the service where a part of this process itself failed: nobody would be replaced any more."""
        failed = None if task.cancelled() else task.exception()
        if failed:
            log.error("the supervisor failed", exc_info=failed)
            self._fail()

    def _fail(self) -> None:
        self._status = 1
        self._ending.set()

    def _children(self) -> list[Child]:
        return [*self._workers.values(), *([self._engine] if self._engine else [])]

    async def _within(
        self, seconds: float, tasks: Sequence[asyncio.Task[None]], children: Callable[[], Iterable[Child]]
    ) -> None:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        if late:
            for child in list(children()):
                child.kill()
            await asyncio.wait(late)

    # --- what they say

    def _listen_to(self, child: Child, hear: Callable[[Message], None]) -> None:
        loop = asyncio.get_running_loop()

        def readable() -> None:
            try:
                message = child.control.receive()
            except MalformedMessage as malformed:
                log.error("process %d is ended: it said what is no message: %s", child.pid, malformed)  # noqa: TRY400 - no bug of this process
                child.kill()
                message = None
            if message is None:
                loop.remove_reader(child.control.fileno())
            else:
                hear(message)

        loop.add_reader(child.control.fileno(), readable)

    def _hear_engine(self, message: Message) -> None:
        if message.kind is Kind.CARD:
            self._cards[message.number] = message.descriptors[0]
            self._tell_workers(message)
        elif message.kind is Kind.READY:
            self._is_ready = True
            for number, worker in self._workers.items():
                self._join(number, worker)
            self._tell_workers(message)
            self._greet_once()
        elif message.kind is Kind.DISMISSED:
            if dismissed := self._workers.get(message.number):
                dismissed.kill()
        else:
            close_all(message)

    def _hear_worker(self, number: int, message: Message) -> None:
        close_all(message)
        if message.kind is Kind.UP:
            self._up.add(number)
            self._greet_once()

    def _tell_workers(self, message: Message) -> None:
        for worker in self._workers.values():
            worker.tell(message)

    def _introduce(self, number: int, worker: Child) -> None:
        """Tell a new worker what the others know already."""
        for index, descriptor in self._cards.items():
            worker.tell(Message(Kind.CARD, index, descriptors=(descriptor,)))
        if self._is_ready:
            self._join(number, worker)
            worker.tell(Message(Kind.READY))

    def _join(self, number: int, worker: Child) -> None:
        """Give a worker and the engine a new link."""
        assert self._engine is not None  # noqa: S101 - for the type checker; it is ready
        memory = arena.create(self._settings.arena_slots)
        ends = socket.socketpair()
        for child, end in zip((worker, self._engine), ends, strict=True):
            child.tell(Message(Kind.LINK, number, descriptors=(end.fileno(), memory)))
            end.close()
        os.close(memory)

    def _greet_once(self) -> None:
        if self._is_ready and len(self._up) == len(self._listening) and not self._has_greeted:
            self._has_greeted = True
            self._greet([card.read(self._cards[index]) for index in sorted(self._cards)])

    # --- the dead and the silent

    def _lose_engine(self) -> None:
        self._forget(self._engine)
        self._engine, self._is_ready = None, False
        self._board.engine.clear()
        self._tell_workers(Message(Kind.LOST))
        for descriptor in self._cards.values():
            os.close(descriptor)
        self._cards.clear()

    def _lose_worker(self, number: int) -> None:
        self._forget(self._workers.pop(number))
        self._up.discard(number)
        self._board.workers[number].clear()

    def _forget(self, child: Child | None) -> None:
        if child:
            asyncio.get_running_loop().remove_reader(child.control.fileno())
            child.control.close()

    async def _watch(self) -> None:
        """Kill what lives and does nothing, so that it is replaced."""
        longest_s = self._settings.hang_timeout_s
        watch = Watch(self._board, longest_s)
        while True:
            await asyncio.sleep(TICK_S)
            silent = watch.look()
            if silent.engine and self._engine:
                log.error("the engine has been silent for %g s", longest_s)
                self._engine.kill()
            for number in silent.workers:
                if worker := self._workers.get(number):
                    log.error("worker %d has been silent for %g s", number, longest_s)
                    worker.kill()
