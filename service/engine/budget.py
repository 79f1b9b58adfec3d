"""Budgets: how much of the device's time may be taken, and how often rows come."""

from __future__ import annotations

import math
import time

_MOST_SAVED_S = 0.05
_FORGETS_S = 30.0
"""How long the rate of rows is remembered."""


class Budget:
    """Time that may be taken: a share of all time, of which a little can be saved up."""

    def __init__(self, share: float) -> None:
        self.share = share
        # The mutable state: what may be taken now, in seconds, and when that was true.
        self._saved = 0.0
        self._at = time.monotonic()

    def has_some(self, now: float) -> bool:
        """Whether anything may be taken; one piece may then take more, which is owed."""
        self._saved = min(self._saved + (now - self._at) * self.share, _MOST_SAVED_S)
        self._at = now
        return self._saved > 0

    def spend(self, seconds: float) -> None:
        """Take it."""
        self._saved -= seconds


class Rate:
    """How many rows come in a second, of late."""

    def __init__(self) -> None:
        # The mutable state: rows that are remembered, fading, since when, and the last time.
        self._rows = 0.0
        self._since = self._at = time.monotonic()

    def count(self, rows: int) -> None:
        """So many have come now."""
        now = time.monotonic()
        fading = math.exp((self._at - now) / _FORGETS_S)
        self._rows = self._rows * fading + rows
        self._at = now

    @property
    def per_second(self) -> float:
        """The rows over the time that is remembered of them."""
        remembered = _FORGETS_S * -math.expm1((self._since - self._at) / _FORGETS_S)
        return self._rows / max(remembered, 1.0)
