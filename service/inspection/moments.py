"""Moments: what the rows of a sample say of the channels at the inputs of norms; rows are the sample.

Pixels of one image are no independent draws, so every row gives two numbers a channel: the mean m of its
pixels and the mean q of their squares. Sampling errors then come from how m and q differ between rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np


class Sums(NamedTuple):
    """Sums over rows, float64 `[..., C]`, of m, q and their products; x is counted from a pivot."""

    m: np.ndarray
    q: np.ndarray
    mm: np.ndarray
    mq: np.ndarray
    qq: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A sample's mean and variance of every channel, float64 `[..., C]`, and how sure they are."""

    mean: np.ndarray
    var: np.ndarray
    """Of all pixels of all rows, biased."""
    spread_of_mean: np.ndarray
    """s²(m): the variance between rows of m; over n it is the squared standard error of `mean`."""
    spread_of_var: np.ndarray
    """s²(d) with d = q - 2·mean·m + mean²; over n it is the squared standard error of `var`."""


def estimate(sums: Sums, rows: float, pivot: np.ndarray) -> Estimate:
    """The estimate from the sums over `rows` rows, at least 2."""
    mean, square = sums.m / rows, sums.q / rows
    bessel = rows / (rows - 1)
    mm = np.maximum(sums.mm / rows - mean**2, 0.0) * bessel
    mq = (sums.mq / rows - mean * square) * bessel
    qq = np.maximum(sums.qq / rows - square**2, 0.0) * bessel
    var = np.maximum(square - mean**2, 0.0)
    return Estimate(mean + pivot, var, mm, np.maximum(qq - 4 * mean * mq + 4 * mean**2 * mm, 0.0))


class Moments:
    """The running sums over one sample, in float64 and from the pivot on, so that nothing cancels."""

    def __init__(self, pivot: np.ndarray) -> None:
        """`pivot` `[C]`: near the means; the reference's will do."""
        self.pivot = pivot.astype(np.float64)
        # The mutable state: how many rows, their sums, and what neighbours have to do with each other.
        self.rows = 0
        self._sums = np.zeros((5, len(pivot)))
        self._products = np.zeros(len(pivot))
        self._first = self._last = np.zeros(len(pivot))

    def add(self, mean: np.ndarray, var: np.ndarray) -> None:
        """Add rows in the order in which they came: `[N, C]` means and variances of each row's pixels."""
        m = mean.astype(np.float64) - self.pivot
        if not len(m):
            return
        self._sums += np.stack(sums_of(m, var))
        before = m[:-1] if not self.rows else np.concatenate([self._last[None], m[:-1]])
        self._products += (before * m[len(m) - len(before) :]).sum(0)
        self._first, self._last = self._first if self.rows else m[0], m[-1]
        self.rows += len(m)

    @property
    def sums(self) -> Sums:
        """What has been added up so far."""
        return Sums(*self._sums)

    def estimate(self) -> Estimate:
        """What is known so far; of at least 2 rows."""
        return estimate(self.sums, self.rows, self.pivot)

    def autocorrelation(self, weight: np.ndarray) -> float:
        """How much a row's means tell of the next row's: 0 for independent rows, 1 for copies.

        Lag 1, pooled over all channels by `weight` `[C]`: the numerators and the denominators are summed
        before they are divided. Never below 0.
        """
        if self.rows < 3:
            return 0.0
        mean = self._sums[0] / self.rows
        ends = 2 * self._sums[0] - self._first - self._last
        together = self._products - mean * ends + (self.rows - 1) * mean**2
        alone = self._sums[2] - self.rows * mean**2
        whole = float(weight @ alone)
        return min(max(float(weight @ together) / whole, 0.0), 0.99) if whole > 0 else 0.0

    @classmethod
    def of(cls, mean: np.ndarray, var: np.ndarray, pivot: np.ndarray) -> Self:
        """The moments of rows `[N, C]`."""
        moments = cls(pivot)
        moments.add(mean, var)
        return moments


def sums_of(m: np.ndarray, var: np.ndarray) -> Sums:
    """The sums over rows of `m` `[N, C]`, counted from the pivot, and of what follows from `var`."""
    q = var.astype(np.float64) + m**2
    return Sums(m.sum(0), q.sum(0), (m * m).sum(0), (m * q).sum(0), (q * q).sum(0))
