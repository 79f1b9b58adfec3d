"""The application: the one place where the parts are put together, in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import uvloop
from fastapi import FastAPI

from service import __version__, telemetry
from service.batching.batcher import Batcher
from service.engine.client import EngineClient
from service.errors import FoldserveError, InvalidConfiguration
from service.store.model_store import ModelStore
from service.telemetry import Telemetry
from service.web import problems, routes_health, routes_models, routes_page, routes_predict
from service.web.body_limit import BodyLimit
from service.web.context import Parts
from service.web.server import BACKLOG, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from service.settings import Settings

log = logging.getLogger("foldserve")


def compose(parts: Parts) -> FastAPI:
    """The web application over its parts."""
    app = FastAPI(
        title="foldserve",
        version=__version__,
        description="Convolutional networks, served with every BatchNorm folded, proven and shown.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = parts
    app.add_middleware(BodyLimit, max_bytes=parts.settings.max_body_bytes)
    app.include_router(routes_predict.router)
    app.include_router(routes_models.router)
    app.include_router(routes_health.router)
    app.include_router(routes_page.router)
    problems.install(app)
    return app


def serve(settings: Settings, greet: Callable[[EngineClient, str], None]) -> int:
    """Serve until a signal comes; the answer is the process's exit status.

    `greet` is called once everything is ready, with the address that is served.
    """
    telemetry.set_up_logs(settings.log_level, settings.log_format)
    listening = _listen(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, listening, greet))


async def _serve(
    settings: Settings, listening: socket.socket, greet: Callable[[EngineClient, str], None]
) -> int:
    metrics = Telemetry()
    batcher = Batcher(settings.limits)
    client = EngineClient(batcher)
    # Imported here: everything above this line also runs in processes that never load torch.
    from service.engine.engine import Engine  # noqa: PLC0415

    engine = Engine(ModelStore(settings.model_store), settings, batcher, metrics, client.hear)
    with ThreadPoolExecutor(os.cpu_count(), "decoder") as decoders:
        app = compose(Parts(client, settings, metrics, decoders))
        server = _Server(app, settings, client)
        engine.start()
        greeting = asyncio.create_task(_greet_when_ready(client, greet, _address(listening)))
        ending = asyncio.create_task(_stop_with_engine(client, server))
        await server.serve(sockets=[listening])
        greeting.cancel()
        ending.cancel()
    batcher.close()
    status = 1 if client.failure or server.force_exit else 0
    patience_s = settings.drain_timeout_s if client.is_ready.is_set() and not server.force_exit else 0
    if not await asyncio.to_thread(engine.join, patience_s):
        # The engine is still loading or computing; nobody waits for that any more, and torch's
        # threads must not be torn down under it.
        logging.shutdown()
        os._exit(status)
    return status


async def _greet_when_ready(
    client: EngineClient, greet: Callable[[EngineClient, str], None], address: str
) -> None:
    await client.is_ready.wait()
    # A full collection with torch loaded stops every thread for a tenth of a second.
    gc.collect()
    gc.freeze()
    greet(client, address)


async def _stop_with_engine(client: EngineClient, server: _Server) -> None:
    await client.stopped.wait()
    if isinstance(client.failure, FoldserveError):
        log.error("%s", client.failure)
    elif client.failure:
        log.error("the engine failed", exc_info=client.failure)
    server.should_exit = True


class _Server(Server):
    """The server, with a drain at the first signal, a stop at the second, and exit status 0 after a drain."""

    def __init__(self, app: FastAPI, settings: Settings, client: EngineClient) -> None:
        super().__init__(app, settings)
        self._client = client

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        self._client.drain()
        self.force_exit = self.should_exit
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    """A listening socket; made with IPPROTO_TCP, without which asyncio leaves Nagle's delay on."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            # At once: another process could still take an address that is only bound.
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    listening.set_inheritable(False)
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
