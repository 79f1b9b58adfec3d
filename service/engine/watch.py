"""The watch: finds out which process does nothing any more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.engine.board import Board, Part

TICK_S = 0.25
"""How often to look."""


class Silent(NamedTuple):
    """Who has not been heard of for too long."""

    engine: bool
    workers: list[int]


class Watch:
    """Looks at the board every `TICK_S` for processes that were up and have been silent for `longest_s`.

    One that was never up is silent `start_s` after it was started, an engine only until it begins to load.
    Time in which this process did not run either, as in a container that is paused, counts for nobody.
    """

    def __init__(
        self, board: Board, longest_s: float, start_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board = board
        self._longest_s = longest_s
        self._start_s = start_s
        self._clock = clock
        # The mutable state: the last look, and since when this process has run without a pause.
        self._looked_at = self._awake_since = clock()

    def look(self) -> Silent:
        """Those who are silent now."""
        now = self._clock()
        if now - self._looked_at > self._longest_s / 2:
            self._awake_since = now
        self._looked_at = now
        workers = enumerate(self._board.workers)
        return Silent(
            self._is_silent(self._board.engine),
            [number for number, worker in workers if self._is_silent(worker)],
        )

    def said_of(self, part: Part) -> str:
        """What is wrong with a silent one."""
        if part.alive_at:
            return f"has been silent for {self._longest_s:g} s"
        return f"has not come up in {self._start_s:g} s"

    def _is_silent(self, part: Part) -> bool:
        heard, longest_s = part.alive_at, self._longest_s
        if not heard:
            heard, longest_s = part.begun_at, self._start_s
        return heard > 0 and self._looked_at - max(heard, self._awake_since) > longest_s
