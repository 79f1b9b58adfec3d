"""The unsent: what of its answers a client has not taken yet, and for how long it has taken nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.web.alarm import Alarm

if TYPE_CHECKING:
    import asyncio


class Unsent:
    """What waits in `transport`, which is cut where the client takes nothing of it for `patience_s`."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience_s: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._patience_s = patience_s
        self._alarm = Alarm(loop, self._look)
        self._bytes = 0  # the mutable state: how many there were when they were looked at last

    def watch(self) -> None:
        """Have the client take something before the alarm rings."""
        self._bytes = self._transport.get_write_buffer_size()
        self._alarm.set(self._loop.time() + self._patience_s)

    def clear(self) -> None:
        """There is room again: watch no more."""
        self._alarm.clear()

    def cancel(self) -> None:
        """The connection has ended: keep nothing in the loop."""
        self._alarm.cancel()

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._bytes:
            self.watch()
        else:
            self._transport.abort()
