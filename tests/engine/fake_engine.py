"""An engine that computes nothing: the other end of a worker's line, for a test to speak by hand."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from service.engine.arena import slots_for
from service.engine.doorbell import Cancel, Outcome, Reply, Ring, Rings
from tests.engine.peer import HANG_S

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from service.engine.arena import Arena


class FakeEngine:
    """The other end of a line, by hand: it speaks the real protocol over a real socket and a real arena."""

    def __init__(self, end: socket.socket, arena: Arena, *, row: int, answer: int) -> None:
        end.setblocking(False)
        self.end = end
        self.arena = arena
        self.heard: list[Ring | Cancel] = []
        self._row = row
        self._answer = answer
        self._inbox = Rings()

    async def hears(self, *expected: type[Ring | Cancel]) -> list[Any]:
        """Wait for as many records, and take them out; they must be of these kinds."""
        loop = asyncio.get_running_loop()
        while len(self.heard) < len(expected):
            received = await asyncio.wait_for(loop.sock_recv(self.end, 1 << 16), HANG_S)
            assert received, "the worker hung up"
            self.heard += self._inbox.records(received)
        taken, self.heard = self.heard[: len(expected)], self.heard[len(expected) :]
        assert [type(record) for record in taken] == list(expected)
        return taken

    async def hears_rings(self, count: int) -> list[Ring]:
        return await self.hears(*[Ring] * count)

    def answer(self, *rings: Ring) -> None:
        """Answer pixels with twice the first of them, all in one batch."""
        for ring in rings:
            pixels = self.arena.array(ring.first_slot, [ring.rows, self._row], "uint8")
            first = ring.first_slot + slots_for(ring.rows, self._row)
            outputs = self.arena.array(first, [ring.rows, self._answer], "float32")
            outputs[:] = pixels[:, : self._answer] * 2.0
        rows = sum(ring.rows for ring in rings)
        self.say(*(Reply(ring.ticket, Outcome.ANSWERED, rows, 0.25, 0.5) for ring in rings))

    def say(self, *replies: Reply | bytes) -> None:
        self.end.send(b"".join(each if isinstance(each, bytes) else each.packed() for each in replies))

    def hang_up(self) -> None:
        self.end.close()


async def turns(count: int = 5) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + HANG_S
    while not look():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        await asyncio.sleep(0.001)
