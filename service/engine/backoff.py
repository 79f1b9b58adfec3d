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
    """Twice as long after every death; more than `most` deaths within ten minutes are the end."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        # The mutable state: when the process died, within the window.
        self._deaths: list[float] = []

    def pause_s(self) -> float | None:
        """Count one more death; how long to wait before the next start, None to give up."""
        now = self._clock()
        self._deaths = [*(death for death in self._deaths if now - death < _WINDOW_S), now]
        if len(self._deaths) > self._most:
            return None
        return min(_FIRST_S * 2.0 ** (len(self._deaths) - 1), _LONGEST_S)

    def __repr__(self) -> str:
        return f"<Backoff {len(self._deaths)} of {self._most} deaths>"
