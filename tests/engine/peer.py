"""A worker in its plainest form, and the small things that tests of both ends of a link need."""

from __future__ import annotations

import itertools
import os
import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from service.engine import arena as arenas
from service.engine.arena import Arena, Slots, slots_for
from service.engine.control import Control, Kind, Message
from service.engine.doorbell import DTYPES, Cancel, Outcome, Replies, Reply, Ring

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_S = 300.0  # reached only by what hangs
ANSWER = 10


def until(look: Callable[[], object]) -> None:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + HANG_S
    while not look():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.005)


def hears(control: Control) -> Message | None:
    """What comes next over a control socket; None at its end."""
    readable, _, _ = select.select([control], [], [], HANG_S)
    assert readable, "nothing came"
    return control.receive()


def is_quiet(control: Control) -> bool:
    """Whether nothing has come."""
    return not select.select([control], [], [], 0)[0]


def mapped_arenas() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:foldserve-arena")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def random_pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 1, 8, 8)).astype(np.uint8)


@dataclass(frozen=True)
class Laid:
    """Where the rows of a job lie, and where its answers will."""

    ring: Ring
    inputs: np.ndarray
    outputs: np.ndarray


class Peer:
    """The worker's end of a link, spoken by hand: nothing stops it from lying."""

    def __init__(self, number: int, end: socket.socket, arena: Arena) -> None:
        self.number = number
        self.end = end
        self.arena = arena
        self.laid: dict[int, Laid] = {}
        end.settimeout(HANG_S)
        self._slots = Slots(arena.slots)
        self._tickets = itertools.count()
        self._inbox = Replies()
        self._come: list[Reply] = []

    @classmethod
    def linked(cls, control: Control, number: int = 0, slots: int = 512, buffer: int = 0) -> Self:
        """Give whoever reads `control` a new link; where that is set, its socket holds `buffer` bytes."""
        memory, (ours, theirs) = arenas.create(slots), socket.socketpair()
        if buffer:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        with theirs:
            control.send(Message(Kind.LINK, number, descriptors=(theirs.fileno(), memory)))
        peer = cls(number, ours, Arena(memory))
        os.close(memory)
        return peer

    def lay(
        self, rows: np.ndarray, *, patience_s: float = HANG_S, model: int = 0, age_s: float = 0.0
    ) -> Ring:
        """Lay rows into the arena; the record that says so."""
        behind = slots_for(len(rows), rows[0].nbytes)
        first = self._slots.take(behind + slots_for(len(rows), 4 * ANSWER))
        assert first is not None, "the test needs a larger arena"
        now, dtype = time.monotonic(), DTYPES.index(rows.dtype.name)
        ring = Ring(next(self._tickets), model, dtype, first, len(rows), now - age_s, now + patience_s)
        inputs = self.arena.array(first, rows.shape, rows.dtype)
        inputs[:] = rows
        outputs = self.arena.array(first + behind, [len(rows), ANSWER], "float32")
        self.laid[ring.ticket] = Laid(ring, inputs, outputs)
        return ring

    def ring(self, rows: np.ndarray, **more: Any) -> int:
        """Have rows computed; the ticket."""
        ring = self.lay(rows, **more)
        self.say(ring)
        return ring.ticket

    def cancel(self, ticket: int) -> None:
        self.say(Cancel(ticket))

    def say(self, *said: Ring | Cancel | bytes) -> None:
        self.end.sendall(b"".join(each if isinstance(each, bytes) else each.packed() for each in said))

    def reply(self) -> Reply:
        """What comes next."""
        while not self._come:
            received = self.end.recv(1 << 16)
            assert received, "the engine hung up"
            self._come += self._inbox.records(received)
        return self._come.pop(0)

    def answer(self, ticket: int) -> tuple[np.ndarray, Reply]:
        """The answer to a job, which must be what comes next."""
        reply = self.reply()
        assert (reply.ticket, reply.outcome) == (ticket, Outcome.ANSWERED)
        return self.laid[ticket].outputs, reply

    def outcome(self, ticket: int) -> Outcome:
        reply = self.reply()
        assert reply.ticket == ticket
        return reply.outcome

    def is_silent(self) -> bool:
        """Whether no reply has come."""
        return not self._come and not select.select([self.end], [], [], 0)[0]

    def is_hung_up_on(self) -> bool:
        """Whether the engine hung up, once it did anything."""
        try:
            return self.end.recv(1 << 16) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.end.close()
