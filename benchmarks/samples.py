"""Samples: what each window of a run measured, and how contenders compare round by round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Spread = tuple[float, float, float]
"""Lower quartile, median, upper quartile."""


@dataclass(frozen=True)
class Cell:
    """What is asked of every contender: one table of the report."""

    network: str
    payload: str
    concurrency: int


@dataclass(frozen=True)
class Sample:
    """One window: one contender under one load for a few seconds."""

    cell: Cell
    contender: str
    round: int
    per_second: float
    """Answers with a 2xx status; for the engine in its own process, rows."""
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers with any other status, and connections that broke."""
    cpu_ms: float
    """CPU time of all the server's processes per answer."""
    mib: float
    """Resident memory of all the server's processes, shared pages counted once, at the window's end."""
    others: float
    """Cores, of the server's, that were busy with somebody else's work."""


class Samples:
    """All samples of a run."""

    def __init__(self) -> None:
        self.all: list[Sample] = []

    def of(self, cell: Cell, contender: str) -> list[Sample]:
        """The contender's windows in the cell, by round."""
        return [s for s in self.all if s.cell == cell and s.contender == contender]

    def contenders(self, cell: Cell) -> list[str]:
        """Those that were measured in the cell, in the order of their first window."""
        return list(dict.fromkeys(s.contender for s in self.all if s.cell == cell))

    def ratios(self, cell: Cell, contender: str, to: str, to_cell: Cell | None = None) -> list[float]:
        """Answers per second of `contender` over those of `to`, for every round that has both."""
        return list(self.ratios_by_round(cell, contender, to, to_cell).values())

    def ratios_by_round(
        self, cell: Cell, contender: str, to: str, to_cell: Cell | None = None
    ) -> dict[int, float]:
        """As `ratios`, each with the number of its round."""
        theirs = {s.round: s.per_second for s in self.of(to_cell or cell, to)}
        ours = [s for s in self.of(cell, contender) if theirs.get(s.round, 0) > 0]
        return {s.round: s.per_second / theirs[s.round] for s in ours}


def spread(values: Iterable[float]) -> Spread:
    """The quartiles; of a single value, that value."""
    known = list(values)
    if len(known) == 1:
        return known[0], known[0], known[0]
    low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
    return low, middle, high


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0..1) of `values` lie; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
