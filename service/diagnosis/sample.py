"""The sample: what the norms saw of some images, held against the frozen statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from service.inspection.moments import Estimate, Sums, estimate
from service.inspection.shift import MOST, Reference, scores, shift

if TYPE_CHECKING:
    from service.inspection.watched import Watched


@dataclass(frozen=True)
class Sample:
    """The score of all rows together, and of all rows but one, for each."""

    rows: int
    score: float
    without: np.ndarray
    """float64 `[N]`; of a single row nothing is left, and it is empty."""

    @classmethod
    def of(cls, watched: Watched, mean: np.ndarray, var: np.ndarray) -> Self:
        """From the means and variances over each row's pixels, `[N, C]`."""
        with np.errstate(all="ignore"):  # a variant of huge inputs may overflow; that is far enough
            m = mean.astype(np.float64) - watched.mean
            q = var.astype(np.float64) + m**2
            each = np.stack([m, q, m * m, m * q, q * q])  # [5, N, C]
            whole = each.sum(1)
            score = float(_score(watched, whole, len(m)))
            without = _score(watched, whole[:, None] - each, len(m) - 1) if len(m) > 1 else np.empty(0)
        return cls(len(m), score, without)

    def gain_on(self, configured: Sample) -> tuple[float, float]:
        """By how much this fits better, and the jackknife's standard error of that."""
        gain = configured.score - self.score
        if self.rows < 2:
            return gain, math.inf
        apart = configured.without - self.without
        spread = float(((apart - apart.mean()) ** 2).sum())
        return gain, math.sqrt(spread * (self.rows - 1) / self.rows)


def _score(watched: Watched, sums: np.ndarray, rows: int) -> np.ndarray:
    """Over all watched norms, of sums `[5, ..., C]` over so many rows."""
    live = _estimate(Sums(*sums), rows, watched.mean)
    found = shift(live, Reference(watched.mean, watched.var, watched.rows), watched.eps, rows)
    layers: np.ndarray = np.nan_to_num(scores(found, watched), nan=MOST, posinf=MOST)
    mean: np.ndarray = layers.mean(-1)
    return mean


def _estimate(sums: Sums, rows: int, pivot: np.ndarray) -> Estimate:
    if rows > 1:
        return estimate(sums, rows, pivot)
    nothing = np.zeros_like(sums.m)  # one row does not tell how rows differ
    return Estimate(sums.m + pivot, np.maximum(sums.q - sums.m**2, 0.0), nothing, nothing)
