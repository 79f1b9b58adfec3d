"""Control: what the supervisor and its children tell each other, and the descriptors that go with it."""

from __future__ import annotations

import array
import os
import select
import socket
import struct
from enum import IntEnum
from typing import NamedTuple, Self

# kind, number, bytes of text
_HEADER = struct.Struct("<III")
_ROOM = socket.CMSG_SPACE(4 * 8)
_MOST_TEXT = 1 << 16
_FLAGS = socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC


class Kind(IntEnum):
    """What a message says."""

    START = 1
    """To a child, first of all: its order as JSON, the board, and to a worker its listening socket."""
    LINK = 2
    """To both sides of a new link: its socket and its arena; to the engine with the worker's number."""
    CARD = 3
    """From the engine to the supervisor to every worker: a model is loaded; its number and its card."""
    READY = 4
    """The same way: every model is loaded."""
    LOST = 5
    """To the workers: the engine is gone."""
    UP = 6
    """From a worker: it answers requests."""
    DISMISSED = 7
    """From the engine: the worker of this number broke the protocol."""
    DRAIN = 8
    """To a child: finish what was accepted, then end."""


class Message(NamedTuple):
    """One message; whoever receives it owns its descriptors."""

    kind: Kind
    number: int = 0
    text: bytes = b""
    descriptors: tuple[int, ...] = ()


class Control:
    """One end of a control socket. Messages are small, so that one is sent or received as a whole."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """One end, and the socket to hand to the other side."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Send without waiting; the descriptors stay the caller's. Raises `OSError` where nobody reads."""
        header = _HEADER.pack(message.kind, message.number, len(message.text))
        socket.send_fds(self._end, [header, message.text], message.descriptors, socket.MSG_DONTWAIT)

    def has_message(self) -> bool:
        """Whether `receive` would not wait."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self) -> Message | None:
        """The next message, waited for; None where the other side is gone."""
        try:
            header, ancillary, _, _ = self._end.recvmsg(_HEADER.size, _ROOM, _FLAGS)
        except ConnectionError:
            return None
        if len(header) < _HEADER.size:
            return None
        kind, number, length = _HEADER.unpack(header)
        text = self._end.recv(length, socket.MSG_WAITALL) if 0 < length <= _MOST_TEXT else b""
        return Message(Kind(kind), number, text, _descriptors(ancillary))

    def close(self) -> None:
        """Hang up; the other side sees it."""
        self._end.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return tuple(found)


def close_all(message: Message) -> None:
    """Close the descriptors of a message that nobody wants."""
    for descriptor in message.descriptors:
        os.close(descriptor)
