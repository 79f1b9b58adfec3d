"""Errands: what a client does on its connection, from one polite request to leaving within an answer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import TYPE_CHECKING

from tests.soak import bodies

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from tests.soak.bodies import Request
    from tests.soak.tally import Tally

PATIENCE_S = 60.0  # only a hang takes this long


class WrongAnswerError(Exception):
    """An answer that the request did not deserve, or none."""


class Connection:
    """One keep-alive connection, opened when it is needed."""

    def __init__(self, host: str, port: int, tally: Tally) -> None:
        self._address = host, port
        self.tally = tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, content: bytes) -> None:
        """Write all of it, as far as the server reads it."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        try:
            self._streams[1].write(content)
            await asyncio.wait_for(self._streams[1].drain(), PATIENCE_S)
        except ConnectionError:
            pass  # it may have answered before it closed; reading says which

    async def answer(self, to: Request) -> None:
        """Read exactly one answer and hold it against what `to` deserves."""
        try:
            status, head, body = await asyncio.wait_for(self._read(), PATIENCE_S)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.drop()
            if not to.may_close:
                raise WrongAnswerError("the connection closed without an answer") from None
            self.tally.closed(to.name)
            return
        except TimeoutError:
            self.drop()
            raise WrongAnswerError(f"no answer in {PATIENCE_S:.0f} s") from None
        self.tally.answered(to.name, status)
        if to.may_close or b"connection: close" in head.lower():
            self.drop()
        _check(to, status, body)

    async def first_bytes(self) -> None:
        """Wait until an answer begins."""
        assert self._streams, "nothing was sent"
        await asyncio.wait_for(self._streams[0].read(1), PATIENCE_S)

    def drop(self, *, reset: bool = False) -> None:
        """Leave, with a goodbye or with a reset."""
        if self._streams is None:
            return
        writer = self._streams[1]
        if reset:
            own: socket.socket = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()
        self._streams = None

    async def _read(self) -> tuple[int, bytes, bytes]:
        assert self._streams, "nothing was sent"
        reader = self._streams[0]
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        return int(head[9:12]), head, await reader.readexactly(length)


def _check(to: Request, status: int, body: bytes) -> None:
    if status not in to.statuses:
        raise WrongAnswerError(f"{status} {body[:200]!r} instead of {sorted(to.statuses)}")
    if status == 200 and to.digits:
        found = tuple(prediction["index"] for prediction in json.loads(body)["predictions"])
        if found != to.digits:
            raise WrongAnswerError(f"the digits {found} instead of {to.digits}")


async def ask(connection: Connection, request: Request) -> None:
    """Send and read."""
    connection.tally.sent(request.name)
    await connection.send(request.content)
    await connection.answer(request)


async def _good(connection: Connection, chance: random.Random) -> None:
    await ask(connection, bodies.good(chance))


async def _bad(connection: Connection, chance: random.Random) -> None:
    await ask(connection, bodies.bad(chance))


async def _many_rows(connection: Connection, chance: random.Random) -> None:
    await ask(connection, bodies.many_rows(chance))


async def _two_at_once(connection: Connection, chance: random.Random) -> None:
    first, second = bodies.good(chance), bodies.good(chance)
    connection.tally.sent(first.name)
    await connection.send(first.content + second.content)
    await connection.answer(first)
    connection.tally.sent(second.name)
    await connection.answer(second)


async def _slow(connection: Connection, chance: random.Random) -> None:
    """A body that trickles in, well within any time-out."""
    request = bodies.good(chance)
    connection.tally.sent(request.name)
    quarter = len(request.content) // 4
    for first in (0, quarter, 2 * quarter):
        await connection.send(request.content[first : first + quarter])
        await asyncio.sleep(chance.random() / 4)
    await connection.send(request.content[3 * quarter :])
    await connection.answer(request)


async def _leave_within_the_request(connection: Connection, chance: random.Random) -> None:
    content = bodies.good(chance).content
    await connection.send(content[: chance.randrange(1, len(content))])
    await _leave(connection, chance, "leaves within the request")


async def _leave_in_the_queue(connection: Connection, chance: random.Random) -> None:
    await connection.send(bodies.good(chance).content)
    await _leave(connection, chance, "leaves before the answer")


async def _leave_within_the_answer(connection: Connection, chance: random.Random) -> None:
    await connection.send(bodies.many_rows(chance).content)
    await connection.first_bytes()
    await _leave(connection, chance, "leaves within the answer")


async def _leave(connection: Connection, chance: random.Random, name: str) -> None:
    await asyncio.sleep(chance.choice((0, 0.001, 0.01)))
    connection.tally.left(name)
    connection.drop(reset=chance.random() < 0.5)


ERRANDS: dict[Callable[[Connection, random.Random], Awaitable[None]], int] = {
    _good: 60,
    _bad: 20,
    _many_rows: 3,
    _two_at_once: 5,
    _slow: 3,
    _leave_within_the_request: 3,
    _leave_in_the_queue: 4,
    _leave_within_the_answer: 2,
}
"""How often each is done, of a hundred."""
