"""Alarms: times at which a connection is looked at again, which cost next to nothing to put off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# Long enough for the loop to read, once, what lay in the kernel while something held the loop up.
_SECOND_LOOK_S = 0.01


class Alarm:
    """Calls `ring` once, at the time that was set last, in seconds of `loop.time()`.

    Putting an alarm off, or clearing it, writes one number: the loop's timer stays and looks again
    when it fires. A time that has passed is looked at twice, so that nobody is called late whose
    bytes had come before, and only waited for a loop that was busy.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        # The mutable state: the time that counts, the timer, when that fires, and the second look.
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._fires = math.inf
        self._is_due = False

    def set(self, at: float) -> None:
        """Ring at this time, and at no other that was set before."""
        self._at = at
        if at < self._fires:
            self._arm(at)

    def advance(self, at: float) -> None:
        """Ring at this time, or at the one that was set before where that is earlier."""
        self.set(min(at, self._at))

    def clear(self) -> None:
        """Do not ring."""
        self._at = math.inf

    def cancel(self) -> None:
        """Do not ring, and keep nothing in the loop."""
        self.clear()
        self._fires = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires = at
        self._timer = self._loop.call_later(max(at - self._loop.time(), 0), self._look)

    def _look(self) -> None:
        self._timer, self._fires = None, math.inf
        was_due, self._is_due = self._is_due, self._at <= self._loop.time()
        if not self._is_due:
            if self._at < math.inf:
                self._arm(self._at)
        elif was_due:
            self._is_due = False
            self.clear()
            self._ring()
        else:
            self._arm(self._loop.time() + _SECOND_LOOK_S)
