"""Listening sockets: made, and closed without losing a connection."""

from __future__ import annotations

import ctypes
import select
import socket
import struct
from contextlib import suppress

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # Linux; Python has no names for them

# A classic BPF program over the TCP header: drop what has SYN set, which is byte 13's bit 1; keep the
# rest, such as the last packet of a handshake that has begun.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)


def refuse_newcomers(listening: socket.socket) -> None:
    """Let no handshake begin any more, while those that have begun still end.

    A client that is not let in tries again after a second, and is then refused, or finds whoever
    listens at the address by then. Without this a handshake may end between the last look at the
    accept queue and the close, and its client would see a connection that dies with its request.
    Where the kernel has no such filter, nothing happens.
    """
    program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
    argument = struct.pack("HxxxxxxP", len(_NO_SYN) // 8, ctypes.addressof(program))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)


def admit_newcomers(listening: socket.socket) -> None:
    """Undo `refuse_newcomers`, whichever process called it: the socket may be older than this one."""
    with suppress(OSError):  # as a rule there is nothing to undo
        listening.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def has_waiting(listening: socket.socket) -> bool:
    """Whether a connection that the kernel has made waits to be accepted."""
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))
