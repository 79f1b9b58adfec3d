"""The quota: which of the sampled rows count in a window, so that no client and no repetition fills it."""

from __future__ import annotations

from collections import Counter

_SHARE = 4


class Quota:
    """An exact copy of a row counts once, and one client for a quarter of the rows that were offered."""

    def __init__(self, window: int) -> None:
        """`window`: the rows that a window is offered at least."""
        self._window = window
        # The mutable state: how many were offered, and whose the admitted are. Digests, never rows.
        self.offered = 0
        self._seen: set[bytes] = set()
        self._admitted: Counter[int] = Counter()

    @property
    def admitted(self) -> int:
        """How many count."""
        return len(self._seen)

    def admits(self, digest: bytes, client: int) -> bool:
        """Whether the next row counts; `digest` tells its content from others'."""
        self.offered += 1
        most = max(self._window, self.offered) // _SHARE
        if digest in self._seen or self._admitted[client] >= most:
            return False
        self._seen.add(digest)
        self._admitted[client] += 1
        return True


def effective(rows: int, autocorrelation: float) -> float:
    """How many independent rows so many are worth that follow each other with that correlation."""
    return rows * (1 - autocorrelation) / (1 + autocorrelation)
