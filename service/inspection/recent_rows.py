"""Recent rows: what the norms saw of the last rows that counted, so that somebody may accept them.

Moments of each row and what the network answered; no pixel. Rows from before a change of state are of no use
then: half of each would make a baseline that nothing is far away from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from service.inspection.baseline import FEWEST_ROWS, Baseline
from service.inspection.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.inspection.watched import Watched

_MOST_ROWS = 1024
_MOST_BYTES = 1 << 25
_ENOUGH_ROWS = 256
"""With fewer, weak noise and blur go unseen, however often they are looked at."""
_KEPT_WINDOWS = 2
"""Of the three that change the state: the first may have begun before what changed it."""


class _Row(NamedTuple):
    moments: np.ndarray
    """Over its pixels: float `[2, C]`, means and variances."""
    answer: int
    window: int


@dataclass(frozen=True)
class Snapshot:
    """The recent rows of one moment."""

    rows: tuple[_Row, ...]
    watched: Watched
    needed: int
    """How many a baseline takes."""

    def baseline(self, classes: int) -> Baseline:
        """What they amount to; raises `ValueError` for fewer than 64. Takes seconds for wide networks."""
        mean, var = np.stack([row.moments for row in self.rows], axis=1)
        answers = np.array([row.answer for row in self.rows])
        return Baseline.of(Rows(mean, var, np.minimum(answers, classes - 1)), self.watched, classes)


class RecentRows:
    """The last 1,024 rows, or as many as 32 MiB hold if those are fewer, but 64 in any case."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        fit = _MOST_BYTES // max(1, 2 * 4 * len(watched.mean))
        self._most = max(FEWEST_ROWS, min(_MOST_ROWS, fit))
        # The mutable state: rows by their digests, the oldest first, and the number of the window that is
        # being filled.
        self._rows: dict[bytes, _Row] = {}
        self._window = 0

    def add(self, mean: np.ndarray, var: np.ndarray, answers: np.ndarray, digests: Sequence[bytes]) -> None:
        """Add rows that a window's quota admitted, `[N, C]` twice and int `[N]`; digests tell their content.

        One that is there already is not there twice. Rows that are not finite are left out.
        """
        for number, digest in enumerate(digests):
            moments = np.stack([mean[number], var[number]])
            self._rows.pop(digest, None)
            if np.isfinite(moments).all():
                self._rows[digest] = _Row(moments, int(answers[number]), self._window)
        while len(self._rows) > self._most:
            del self._rows[next(iter(self._rows))]

    def end_window(self, *, is_change: bool) -> None:
        """A window was judged; where that changed the state, forget what came before the change."""
        self._window += 1
        if is_change:
            first = self._window - _KEPT_WINDOWS
            self._rows = {digest: row for digest, row in self._rows.items() if row.window >= first}

    def snapshot(self) -> Snapshot:
        """What there is now; taken in no time, for another thread to work with."""
        return Snapshot(tuple(self._rows.values()), self._watched, min(_ENOUGH_ROWS, self._most))
