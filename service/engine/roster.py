"""The roster: the processes that run, and what they must know of each other."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import TYPE_CHECKING

from service.engine import arena, card
from service.engine.changes import Changes
from service.engine.control import Kind, MalformedMessage, Message, close_all
from service.telemetry import level_of, set_level

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.engine.board import Board
    from service.engine.card import ModelCard, ModelKey
    from service.engine.child import Child
    from service.telemetry import Level, Telemetry

log = logging.getLogger("foldserve")


class Roster:
    """Passes on what the engine says to all workers, the later ones too, and joins each of them to it.

    `changed` is called when somebody has become ready.
    """

    def __init__(
        self, board: Board, arena_slots: int, telemetry: Telemetry, changed: Callable[[], None]
    ) -> None:
        self._board = board
        self._arena_slots = arena_slots
        self._changed = changed
        # The mutable state: who runs, and what the engine has said.
        self.engine: Child | None = None
        self.workers: dict[int, Child] = {}
        self.up: set[int] = set()
        """The workers that answer requests."""
        self.is_ready = False
        """Whether the engine has loaded everything."""
        self.log_level: Level | None = None
        """What somebody asked to be logged; None: as the settings say."""
        self._cards: dict[int, int] = {}
        self.served: list[ModelKey] | None = None
        """What the last engine that was ready served at its end."""
        self.changes = Changes(self.workers.values, self._tell_engine, telemetry)

    def everybody(self) -> list[Child]:
        """All that run."""
        return [*self.workers.values(), *([self.engine] if self.engine else [])]

    def cards(self) -> list[ModelCard]:
        """Of the models that the engine has loaded so far."""
        return [card.read(self._cards[index]) for index in sorted(self._cards)]

    # --- who comes and goes

    def enter_engine(self, engine: Child) -> None:
        """The engine was started."""
        self.engine = engine
        self._board.engine.begun_at = time.monotonic()
        _listen_to(engine, self._hear_engine)
        self._tell_level(engine)

    def strike_engine(self) -> None:
        """The engine has ended; what it said is true no more."""
        if self.is_ready:
            self.served = [each.key for each in self.cards()]
        if self.engine:
            self.engine.forget()
        self.engine, self.is_ready = None, False
        self._board.engine.clear()
        self.tell_workers(Message(Kind.LOST))
        for descriptor in self._cards.values():
            os.close(descriptor)
        self._cards.clear()
        self.changes.strike_engine()

    def enter_worker(self, number: int, worker: Child) -> None:
        """A worker was started; it is told what the others know already."""
        self.workers[number] = worker
        self._board.workers[number].begun_at = time.monotonic()
        _listen_to(worker, lambda message: self._hear_worker(number, message))
        self._tell_level(worker)
        for index, descriptor in self._cards.items():
            worker.tell(Message(Kind.CARD, index, descriptors=(descriptor,)))
        if self.is_ready:
            self._join(number, worker)
            worker.tell(Message(Kind.READY))

    def strike_worker(self, number: int) -> None:
        """A worker has ended."""
        worker = self.workers.pop(number)
        worker.forget()
        self.changes.strike_worker(worker)
        self.up.discard(number)
        self._board.workers[number].clear()

    def kill_worker(self, number: int) -> None:
        """End a worker at once, if it still runs."""
        worker = self.workers.get(number)
        if worker:
            worker.kill()

    def tell_workers(self, message: Message) -> None:
        """Say something to all workers."""
        for worker in self.workers.values():
            worker.tell(message)

    # --- what they say

    def _hear_engine(self, message: Message) -> None:
        if message.kind is Kind.CARD:
            if message.number in self._cards:  # the same network, with another baseline
                os.close(self._cards[message.number])
            self._cards[message.number] = message.descriptors[0]
            self.tell_workers(message)
        elif message.kind is Kind.READY:
            self.is_ready = True
            for number, worker in self.workers.items():
                self._join(number, worker)
            self.tell_workers(message)
            self._changed()
        elif message.kind is Kind.DISMISSED:
            self.kill_worker(message.number)
        elif message.kind in (Kind.DROP, Kind.SETTLED):
            if message.kind is Kind.DROP:
                os.close(self._cards.pop(message.number))
            self.changes.hear_engine(message)
        else:
            close_all(message)

    def _hear_worker(self, number: int, message: Message) -> None:
        close_all(message)
        if message.kind is Kind.UP:
            self.up.add(number)
            self._changed()
        elif message.kind is Kind.LEVEL:
            self._change_level(level_of(message.text), number, message.number)
        else:
            self.changes.hear_worker(self.workers[number], message)

    def _change_level(self, level: Level, asker: int, asked: int) -> None:
        """Let everybody log this, the asker last: then all have been told when it hears of it."""
        self.log_level = level
        set_level(level)
        for child in self.everybody():
            if child is not self.workers[asker]:
                self._tell_level(child)
        self._tell_level(self.workers[asker], asked)

    def _tell_level(self, child: Child, asked: int = 0) -> None:
        """Also to one that was just started: the level may have changed since its order was written."""
        if self.log_level:
            child.tell(Message(Kind.LEVEL, asked, self.log_level.encode()))

    def _tell_engine(self, message: Message) -> bool:
        if self.engine:
            self.engine.tell(message)
        return self.engine is not None

    def _join(self, number: int, worker: Child) -> None:
        """Give a worker and the engine a new link."""
        assert self.engine is not None  # noqa: S101 - for the type checker; it is ready
        memory = arena.create(self._arena_slots)
        ends = socket.socketpair()
        for child, end in zip((worker, self.engine), ends, strict=True):
            child.tell(Message(Kind.LINK, number, descriptors=(end.fileno(), memory)))
            end.close()
        os.close(memory)


def _listen_to(child: Child, hear: Callable[[Message], None]) -> None:
    loop = asyncio.get_running_loop()

    def readable() -> None:
        try:
            message = child.control.receive()
        except MalformedMessage:
            log.exception("process %d is ended: what it said is no message", child.pid)
            child.kill()
            message = None
        if message is None:
            loop.remove_reader(child.control.fileno())
            return
        try:
            hear(message)
        except Exception:
            log.exception("process %d is ended: what it said could not be done", child.pid)
            child.kill()

    loop.add_reader(child.control.fileno(), readable)
