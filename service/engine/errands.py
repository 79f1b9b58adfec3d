"""The errands: changes that requests to this worker have asked for, and how the last ones ended."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from service.engine.change import Settled
from service.engine.control import Kind, Message
from service.errors import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.engine.change import Change

_MOST = 32


class Errands:
    """For one event loop; `tell` says something to the supervisor."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._numbers = itertools.count(1)  # 0 is for those who did not ask
        # The mutable state: who waits, and for which models the last change was refused.
        self._waiting: dict[int, asyncio.Future[Settled]] = {}
        self.refusals: dict[str, str] = {}
        """Why, by model."""

    async def do(self, change: Change) -> None:
        """Have a change made, and return when every worker serves accordingly.

        Raises what it is refused for: `LoadRefused`, `UnknownModel`, `UnknownVersion`, `Draining`,
        `EngineFailed`, and `QueueFull` where too many wait. Being cancelled cancels nothing.
        """
        if len(self._waiting) >= _MOST:
            raise QueueFull("too many changes wait", retry_after_s=1)
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._tell(Message(Kind.ASK, number, change.packed()))
            error = (await waiting).error()
        finally:
            del self._waiting[number]
        if error:
            raise error

    def settle(self, message: Message) -> None:
        """A change has come to its end; it may be one that somebody else asked for."""
        settled = Settled.model_validate_json(message.text)
        if settled.change.action != "accept":
            self._note(settled)
        waiting = self._waiting.get(message.number)
        if waiting and not waiting.done():
            waiting.set_result(settled)

    def _note(self, settled: Settled) -> None:
        """Know why what is served is not what was asked for."""
        self.refusals.pop(settled.change.model, None)
        if settled.refusal and settled.refusal != "UnknownModel":  # of names that nobody has there is no end
            self.refusals[settled.change.model] = settled.detail
