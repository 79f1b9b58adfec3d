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
_MOST_TEXT = 1 << 16
_ROOM = socket.CMSG_SPACE(4 * 8)


class MalformedMessage(Exception):
    """The other side said what is no message."""


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
    ASK = 9
    """From a worker to the supervisor to the engine: make a change; the asker's number for it."""
    DROP = 10
    """From the engine to the supervisor to every worker: the model of this number is served no more."""
    IDLE = 11
    """From a worker: no request here uses the model of this number, which was dropped, any more."""
    RETIRE = 12
    """To the engine: the same of all workers."""
    FENCE = 13
    """To a worker and back: all that was said before this is done."""
    SETTLED = 14
    """From the engine to the supervisor to every worker: what became of a change; its number for the
    worker that asked, 0 for the others."""
    LEVEL = 15
    """From a worker to the supervisor to everybody: what is logged from now on; the asker's number for it,
    0 for the others."""


class Message(NamedTuple):
    """One message; whoever receives it owns its descriptors."""

    kind: Kind
    number: int = 0
    text: bytes = b""
    descriptors: tuple[int, ...] = ()


class Control:
    """One end of a control socket, which keeps messages apart: one comes as a whole or not at all."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """One end, and the socket to hand to the other side."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Send without waiting; the descriptors stay the caller's. Raises `OSError` where nobody reads."""
        if len(message.text) > _MOST_TEXT:
            raise ValueError(f"a text of {len(message.text)} bytes")
        header = _HEADER.pack(message.kind, message.number, len(message.text))
        # Not by `socket.send_fds`, which drops the flags: it would wait.
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.descriptors))
        ancillary = [rights] if message.descriptors else []
        self._end.sendmsg([header, message.text], ancillary, socket.MSG_DONTWAIT)

    def has_message(self) -> bool:
        """Whether `receive` would not wait."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self) -> Message | None:
        """The next message, waited for; None where the other side is gone. Raises `MalformedMessage`."""
        try:
            content, ancillary, flags, _ = self._end.recvmsg(
                _HEADER.size + _MOST_TEXT, _ROOM, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None
        descriptors = _descriptors(ancillary)
        if not content:
            return None
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            _close(descriptors)
            raise MalformedMessage("something of it is missing: this process may have no descriptor left")
        try:
            kind, number, length = _HEADER.unpack_from(content)
            message = Message(Kind(kind), number, content[_HEADER.size :], descriptors)
        except (struct.error, ValueError) as wrong:
            _close(descriptors)
            raise MalformedMessage(str(wrong)) from None
        if len(message.text) != length:
            _close(descriptors)
            raise MalformedMessage(f"a text of {len(message.text)} bytes, announced with {length}")
        return message

    def close(self) -> None:
        """Hang up; the other side sees it."""
        self._end.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return tuple(found)


def kept(message: Message) -> Message:
    """The same message with descriptors of its own."""
    return message._replace(descriptors=tuple(map(os.dup, message.descriptors)))


def close_all(message: Message) -> None:
    """Close the descriptors of a message that nobody wants."""
    _close(message.descriptors)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
