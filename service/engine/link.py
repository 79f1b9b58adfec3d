"""The link: the engine's end of what joins it to one worker, a socket and an arena."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.engine.doorbell import REPLY_BYTES, Rings

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from service.engine.arena import Arena
    from service.engine.doorbell import Cancel, Reply, Ring

_READ_BYTES = 1 << 18


class Link:
    """Reads a worker's records and writes replies, never waiting for the worker.

    A link lives as long as both its ends: where one process is replaced, a new link joins the new pair, with
    a new arena, so that nothing of the old one can be mistaken.
    """

    def __init__(self, worker: int, end: socket.socket, arena: Arena) -> None:
        self.worker = worker
        self.arena = arena
        end.setblocking(False)
        self._end = end
        self._rings = Rings()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._end.fileno()

    def receive(self) -> Iterable[Ring | Cancel] | None:
        """What has come; None once the worker is gone. Raises `MalformedRecord`."""
        try:
            received = self._end.recv(_READ_BYTES)
        except BlockingIOError:
            return ()
        except ConnectionError:
            return None
        return list(self._rings.records(received)) if received else None

    @property
    def unsent(self) -> int:
        """How many replies have not gone yet."""
        return len(self._unsent) // REPLY_BYTES

    def reply(self, reply: Reply) -> None:
        """Say what became of a job, with the next `flush`."""
        self._unsent += reply.packed()

    def flush(self) -> bool:
        """Send what was said; whether all of it went."""
        while self._unsent:
            try:
                sent = self._end.send(self._unsent)
            except BlockingIOError:
                return False
            except ConnectionError:  # reading finds out
                self._unsent.clear()
                break
            del self._unsent[:sent]
        return True

    def close(self) -> None:
        """Hang up."""
        self._end.close()

    def __repr__(self) -> str:
        return f"<Link to worker {self.worker}>"
