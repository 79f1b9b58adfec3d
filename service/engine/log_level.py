"""The log level: what all processes log, as one worker knows it and may change it."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from service.engine.control import Kind, Message
from service.errors import QueueFull
from service.telemetry import level_of, set_level

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.telemetry import Level

_MOST = 32


class LogLevel:
    """For one event loop; `tell` says something to the supervisor, who tells everybody."""

    def __init__(self, level: Level, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._numbers = itertools.count(1)  # 0 is for those who did not ask
        # The mutable state: what holds now, and who waits to hear that a change has come through.
        self.level = level
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def change(self, level: Level) -> None:
        """Let all processes log this from now on; returns when this one does and all others are told.

        Raises `QueueFull` where too many wait.
        """
        if len(self._waiting) >= _MOST:
            raise QueueFull("too many changes wait", retry_after_s=1)
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._tell(Message(Kind.LEVEL, number, level.encode()))
            await waiting
        finally:
            del self._waiting[number]

    def hear(self, message: Message) -> None:
        """The supervisor says what holds, whoever asked for it."""
        self.level = level_of(message.text)
        set_level(self.level)
        waiting = self._waiting.get(message.number)
        if waiting and not waiting.done():
            waiting.set_result(None)
