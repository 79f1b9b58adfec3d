"""Listening sockets: closed without losing a connection."""

from __future__ import annotations

import select
import socket
from contextlib import suppress

_SO_BINDTOIFINDEX = 62  # Linux; Python has no name for it
_NO_INTERFACE = 2**31 - 1


def refuse_newcomers(listening: socket.socket) -> None:
    """Let no handshake begin any more, while those that have begun still end; there is no way back.

    The socket is bound to a network interface that does not exist. So the kernel finds nobody who
    listens when a client comes anew, and refuses it at once; what is on its way belongs to the socket
    already. Without this a handshake may end between the last look at the accept queue and the close,
    and its client would see a connection that dies with its request. It takes Linux 5.7, and no
    rights; elsewhere nothing happens.
    """
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)


def has_waiting(listening: socket.socket) -> bool:
    """Whether a connection that the kernel has made waits to be accepted."""
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))
