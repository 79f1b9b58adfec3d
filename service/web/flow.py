"""Flow control: whether a connection is read, and for how long it was not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    from collections.abc import Callable


class Flow(FlowControl):
    """uvicorn's; it also tells `resumed` how many seconds reading was paused, once it goes on."""

    def __init__(self, transport: asyncio.Transport, resumed: Callable[[float], None]) -> None:
        super().__init__(transport)
        self._loop = asyncio.get_running_loop()
        self._resumed = resumed
        self._paused_at = 0.0

    def pause_reading(self) -> None:
        if not self.read_paused:
            self._paused_at = self._loop.time()
            super().pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            super().resume_reading()
            self._resumed(self._loop.time() - self._paused_at)
