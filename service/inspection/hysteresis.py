"""Hysteresis: a state changes when three windows in a row say so, and not before."""

from __future__ import annotations

WINDOWS = 3
LOWER = 0.7


class Hysteresis:
    """Whether a score is up: after three windows above its threshold, until three below 0.7 of it."""

    def __init__(self) -> None:
        # The mutable state: what it says, and for how many windows in a row these contradicted it.
        self.is_up = False
        self.contrary = 0

    def hear(self, score: float, threshold: float) -> bool:
        """Take the next window's score; whether that changes what it says."""
        is_contrary = score < LOWER * threshold if self.is_up else score > threshold
        self.contrary = self.contrary + 1 if is_contrary else 0
        if self.contrary < WINDOWS:
            return False
        self.is_up, self.contrary = not self.is_up, 0
        return True
