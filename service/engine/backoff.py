"""Backoff: how long to wait before a dead process is started again, and when to give up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_S = 0.1
_LONGEST_S = 30.0
_WINDOW_S = 600.0


class Backoff:
    """Twice as long after every death; the end is more than `most` within ten minutes, or without any work.

    A process that takes long to load dies seldom, and may yet never come to its work.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        # The mutable state: when the process died, within the window, and how often since it did any work.
        self._deaths: list[float] = []
        self._in_vain = 0

    def pause_s(self, *, did_work: bool = False) -> float | None:
        """Count one more death; how long to wait before the next start, None to give up.

        `did_work`: whether this time the process had come to what it is there for.
        """
        now = self._clock()
        self._deaths = [*(death for death in self._deaths if now - death < _WINDOW_S), now]
        self._in_vain = 0 if did_work else self._in_vain + 1
        deaths = max(len(self._deaths), self._in_vain)
        if deaths > self._most:
            return None
        return min(_FIRST_S * 2.0 ** (deaths - 1), _LONGEST_S)

    def __repr__(self) -> str:
        return f"<Backoff {len(self._deaths)} of {self._most} deaths>"
