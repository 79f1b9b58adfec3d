"""The drain under load: no request is lost that was sent on an open connection."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from .digits import Digits, encoded
from .server import PATIENCE, Server
from .wire import head

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

pytestmark = pytest.mark.e2e

CONNECTIONS = 64
TRIES = int(os.environ.get("FOLDSERVE_TEST_DRAINS", "2"))


@dataclass
class Load:
    """A closed loop: each connection sends its next request when the last one is answered.

    One that is told to close connects anew, until it is refused.
    """

    address: str
    request: bytes
    answers: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    refused: int = 0

    async def run(self, connections: int) -> None:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._until_refused())

    async def _until_refused(self) -> None:
        parts = urlsplit(self.address)
        while True:
            try:
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            except ConnectionRefusedError:
                self.refused += 1
                return
            await self._until_told(reader, writer)
            writer.close()

    async def _until_told(self, reader: StreamReader, writer: StreamWriter) -> None:
        is_last, answered = False, 0
        while not is_last:
            try:
                writer.write(self.request)
                status, is_last = await _answer(reader)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.lost.append(f"request {answered + 1} of its connection: {error!r}")
                return
            self.answers[status] += 1
            answered += 1


async def _answer(reader: StreamReader) -> tuple[int, bool]:
    """The status, and whether the connection ends with it."""
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines[1:] if line)
    await reader.readexactly(int(headers[b"content-length"]))
    return int(lines[0].split()[1]), headers.get(b"connection") == b"close"


@pytest.mark.parametrize("try_", range(TRIES))
@pytest.mark.parametrize("keeps_alive", [True, False], ids=["keep-alive", "a connection each"])
def test_signal_under_load_loses_no_request(digits: Digits, try_: int, *, keeps_alive: bool) -> None:
    body = encoded(digits.pixels[0])
    lines = [f"Content-Length: {len(body)}", *([] if keeps_alive else ["Connection: close"])]

    async def drained(server: Server) -> Load:
        load = Load(server.address, head(*lines) + body)
        loading = asyncio.create_task(load.run(CONNECTIONS))
        while load.answers.total() < 500 + 50 * try_:  # noqa: ASYNC110 - it is looked at, nobody tells
            await asyncio.sleep(0.001)
        server.process.signal(signal.SIGTERM)
        await loading
        return load

    with Server.start(workers=2) as server:
        load = asyncio.run(drained(server))
        assert server.process.wait() == 0, server.log
        assert "Traceback" not in server.log
    assert load.lost == []
    assert set(load.answers) == {200}
    assert load.refused == CONNECTIONS
