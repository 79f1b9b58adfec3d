"""Our HTTP server in this process, over applications of a few lines, and clients on raw sockets."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from service.errors import FoldserveError
from service.settings import Settings
from service.web.body_limit import BodyLimit
from service.web.problems import problem
from service.web.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from starlette.types import ASGIApp, Receive, Scope, Send

    from service.web.refusal import Refusal

T = TypeVar("T")

PATIENCE = 300.0  # seconds; only a hang takes this long
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it on the loop that the service runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body, once it is complete."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, b"%d" % length)


def _with_problems(app: ASGIApp) -> ASGIApp:
    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except FoldserveError as error:
            await problem(error)(scope, receive, send)

    return answering


async def answer(send: Send, content: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Running:
    """A server that accepts; tests talk to it through `connect`."""

    def __init__(self, server: Server, listening: socket.socket) -> None:
        self.server = server
        self.listening = listening
        self.address = listening.getsockname()
        self.clients: list[socket.socket] = []

    def connect(self, *sent: bytes) -> socket.socket:
        """A connection on which this was sent; nothing else runs meanwhile, so the server has not read it."""
        client = socket.create_connection(self.address, PATIENCE)
        self.clients.append(client)
        for content in sent:
            client.sendall(content)
        return client

    async def drain(self) -> None:
        await asyncio.wait_for(self.server.shutdown([self.listening]), PATIENCE)

    async def until_open(self, number: int) -> None:
        """Let the loop run until so many connections are open."""
        deadline = time.monotonic() + PATIENCE
        while len(self.server.server_state.connections) != number:
            assert time.monotonic() < deadline, self.server.server_state.connections
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    listening: socket.socket | None = None,
    witness: Callable[[Refusal], None] = lambda _: None,
    **settings: Any,
) -> AsyncIterator[Running]:
    listening = listening or socket.create_server(("127.0.0.1", 0))
    server = Server(BodyLimit(_with_problems(app), 1 << 30, 1 << 32), Settings(**settings), witness)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup([listening])
    running = Running(server, listening)
    try:
        yield running
    finally:
        if not server.server_state.is_draining:
            await running.drain()
        for client in running.clients:  # a test that fails leaves some open
            client.close()


async def received(client: socket.socket) -> bytes:
    """All that comes until the server closes; a reset ends it too, as Python's text of it."""

    def read() -> bytes:
        found = b""
        try:
            while piece := client.recv(1 << 16):
                found += piece
        except ConnectionResetError:
            found += b"<reset>"
        return found

    with client:
        return await asyncio.to_thread(read)


async def received_one(client: socket.socket) -> bytes:
    """The next answer, and no byte more."""

    def read() -> bytes:
        found, missing = b"", 1
        while missing:
            piece = client.recv(missing)
            assert piece, f"the connection ended behind {found!r}"
            found += piece
            head, end, content = found.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            missing = (int(length[1]) if length else 0) - len(content) if end else 1
        return found

    return await asyncio.to_thread(read)
