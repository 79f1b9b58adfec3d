"""The worker: one process that speaks HTTP on a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from service.engine.client import EngineClient
from service.engine.control import Kind, Message
from service.inspection.notices import Notices
from service.keyring import Keyring
from service.telemetry import AccessLog, SharedValues, Telemetry, watch_lag
from service.web.application import compose
from service.web.context import Parts
from service.web.refusal import Refusals
from service.web.server import Server

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

    from service.engine.board import Board
    from service.engine.child import Order
    from service.engine.control import Control
    from service.settings import Settings

log = logging.getLogger("foldserve")

_BEAT_S = 0.1


class Worker:
    """Answers requests until the supervisor says to drain, or is gone."""

    def __init__(self, control: Control, order: Order, board: Board, listening: socket.socket) -> None:
        self._control = control
        self._order = order
        self._board = board
        self._listening = listening

    async def run(self) -> None:
        """Serve; ends when everything that was accepted is answered."""
        settings = self._order.settings
        client = EngineClient(settings, self._board, self._order.number, self._control.send)
        decoders = ThreadPoolExecutor(_decoders(), "decoder")
        telemetry = Telemetry(SharedValues(self._order.counts, f"worker-{self._order.number}"))
        keyring = Keyring(settings, self._order.keys)
        parts = Parts(client, settings, telemetry, decoders, Notices(self._order.counts))
        access_log = AccessLog(settings.log_format, telemetry) if settings.access_log else None
        app, witness = compose(parts, keyring, access_log), Refusals(telemetry, access_log)
        server = _Server(app, settings, witness, self._tell_up)
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._obey, client, server)
        self._obey(client, server)  # a replacement knows of the engine before it is asked
        besides = [asyncio.create_task(_beat(client)), asyncio.create_task(watch_lag(telemetry))]
        await server.serve(sockets=[self._listening])
        for task in besides:
            task.cancel()
        for threads in (decoders, parts.doctor):
            threads.shutdown(wait=False, cancel_futures=True)  # the loop still has answers to give
        if access_log:
            access_log.close()

    def _tell_up(self) -> None:
        _settle_down()
        self._control.send(Message(Kind.UP, self._order.number))

    def _obey(self, client: EngineClient, server: Server) -> None:
        """Do what the supervisor says, or make room for somebody who can."""
        try:
            self._hear(client, server)
        except Exception:
            log.exception("worker %d ends: it could not do what it was told", self._order.number)
            os._exit(1)

    def _hear(self, client: EngineClient, server: Server) -> None:
        while self._control.has_message():
            message = self._control.receive()
            if message is None:
                # The supervisor died: nobody would replace the engine, end this process or clean up.
                shutil.rmtree(self._order.counts, ignore_errors=True)
                os._exit(1)
            client.hear(message)
            if message.kind is Kind.READY:
                _settle_down()  # the cards stay
        server.should_exit = client.is_draining


def _settle_down() -> None:
    """Let no later collection look at what is here now: it stays, and would stop every request."""
    gc.collect()
    gc.freeze()


async def _beat(client: EngineClient) -> None:
    while not client.is_broken:
        client.beat()
        await asyncio.sleep(_BEAT_S)
    os._exit(1)  # no client waits for anything that this process could still answer


def _decoders() -> int:
    return len(os.sched_getaffinity(0))


class _Server(Server):
    """The server of a worker: signals are the supervisor's, who hears when it serves."""

    def __init__(
        self, app: ASGIApp, settings: Settings, witness: Refusals, started: Callable[[], None]
    ) -> None:
        super().__init__(app, settings, witness)
        self._started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()
