"""The draw: which of the rows that are answered will be looked at, by lot."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, NamedTuple

from service.engine.budget import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from service.batching.job import Part
    from service.engine.linked_job import LinkedJob


class Drawn(NamedTuple):
    """A row that waits to be looked at."""

    row: np.ndarray
    """A copy: `[1, C, H, W]`."""
    answer: int
    """The class that the network gave it; 0 where it gives none."""
    client: int


class Draw:
    """Of a version's rows as many as can be looked at in `share` of all time; `most` of them wait at once."""

    def __init__(self, share: float, most: int, row_s: float) -> None:
        self.row_s = row_s
        """The seconds that a row is thought to take; whoever looks at rows corrects it."""
        self.waiting: list[Drawn] = []
        """Those that were drawn and not taken yet."""
        self._share = share
        self._most = most
        self._random = random.Random()  # noqa: S311 - nobody is kept out by it
        # The mutable state besides: how often rows come, and of how many those that wait were drawn.
        self._rate = Rate()
        self._drawn = 0

    def see(self, rows: np.ndarray, answers: np.ndarray, batch: Sequence[Part[LinkedJob]]) -> None:
        """Draw from the rows of one batch: every row has the same chance, as far as the rate is steady."""
        self._rate.count(len(rows))
        number = self._gap()  # not what the batch before left of one: its chance was another
        while number < len(rows):
            self._draw(rows[number : number + 1], answers[number], _client(batch, number))
            number += 1 + self._gap()

    def take(self) -> list[Drawn]:
        """The rows that wait, as far as they are of one dtype; the others go on waiting."""
        dtype = self.waiting[0].row.dtype
        taken = [one for one in self.waiting if one.row.dtype == dtype]
        self.waiting = [one for one in self.waiting if one.row.dtype != dtype]
        self._drawn = len(self.waiting)
        return taken

    def forget(self) -> None:
        """No row waits any more."""
        self.waiting, self._drawn = [], 0

    def _draw(self, row: np.ndarray, answer: np.ndarray, client: int) -> None:
        """Let a row wait; where too many do, it takes the place of one of them by lot, or of none."""
        self._drawn += 1
        is_full = len(self.waiting) == self._most
        place = self._random.randrange(self._drawn) if is_full else len(self.waiting)
        if place < self._most:
            is_class = answer.ndim == 1
            drawn = Drawn(row.copy(), int(answer.argmax()) if is_class else 0, client)
            self.waiting[place : place + 1] = [drawn]

    def _gap(self) -> int:
        """How many rows to leave out before the next, so that each is drawn with the chance of now."""
        chance = min(1.0, self._share / (self.row_s * max(self._rate.per_second, 1e-9)))
        if chance >= 1:
            return 0
        return int(math.log(1 - self._random.random()) / math.log1p(-chance))


def _client(batch: Sequence[Part[LinkedJob]], row: int) -> int:
    """Whose row it is."""
    for part in batch:
        row -= part.stop - part.start
        if row < 0:
            return part.job.client
    return 0
