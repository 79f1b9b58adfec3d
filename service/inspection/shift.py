"""Shift: how far a sample lies from a reference, channel by channel, in units of the reference's spread.

Lee, "Unsupervised detection of distributional shift with BatchNorm statistics" (arXiv 2107.00191), compares
a network's running statistics with those of live inputs; the errors here are those of rows, not of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from service.inspection.moments import Estimate
    from service.inspection.watched import Watched

_WORST = 5

MOST = 10.0
"""Where a channel's divergence ends: far is far, and one channel must not speak for all."""


@dataclass(frozen=True)
class Reference:
    """What a sample is compared with; float64 `[C]`."""

    mean: np.ndarray
    var: np.ndarray
    rows: np.ndarray | float
    """How many independent rows it was measured on; infinite for none of its own error."""


@dataclass(frozen=True)
class Shift:
    """All float64 `[..., C]`."""

    delta: np.ndarray
    """(mean - reference mean) / sqrt(reference var + eps)."""
    log_ratio: np.ndarray
    """lambda: ln((var + eps) / (reference var + eps))."""
    delta_error: np.ndarray
    """The standard error of `delta`, the reference's own error included."""
    log_ratio_error: np.ndarray
    divergence: np.ndarray
    """J*: the symmetric divergence of two normal distributions, less what sampling alone would show."""

    @property
    def z(self) -> np.ndarray:
        """The larger of both in its standard errors."""
        with np.errstate(all="ignore"):
            both = np.abs([self.delta / self.delta_error, self.log_ratio / self.log_ratio_error])
        z: np.ndarray = np.max(np.nan_to_num(both, nan=0.0, posinf=np.finfo(float).max), axis=0)
        return z


def shift(live: Estimate, reference: Reference, eps: np.ndarray, rows: float) -> Shift:
    """How far `live`, worth `rows` independent rows, lies from `reference`."""
    with np.errstate(all="ignore"):  # channels with broken statistics weigh nothing
        expected, own = reference.var + eps, live.var + eps
        delta, log_ratio = (live.mean - reference.mean) / np.sqrt(expected), np.log(own / expected)
        per_row = 1 / rows + 1 / np.asarray(reference.rows)
        delta_error = live.spread_of_mean / expected * per_row  # squared, up to the last line
        log_ratio_error = live.spread_of_var / own**2 * per_row
        ratio = own / expected
        raw = (ratio + 1 / ratio - 2 + delta**2 * (1 + 1 / ratio)) / 2
        divergence = np.minimum(raw - delta_error - log_ratio_error / 2, MOST)
        return Shift(delta, log_ratio, np.sqrt(delta_error), np.sqrt(log_ratio_error), divergence)


def scores(found: Shift, watched: Watched, channels: slice = slice(None)) -> np.ndarray:
    """The score of every norm, `[..., norms]`: its channels' divergence, weighed by gamma².

    Of a shift at some `channels` only, what these add to each.
    """
    weight = watched.weight[channels]
    return watched.by_norm(np.where(weight > 0, found.divergence, 0.0) * weight, channels)


def worst(divergence: np.ndarray, watched: Watched, number: int) -> list[int]:
    """The channels of one norm, among those of all `[C]`, that add most to its score; the worst first."""
    first = int(watched.starts[number])
    channels = slice(first, first + len(watched.norms[number].mean))
    weight = watched.weight[channels]
    share = np.where(weight > 0, divergence[channels], 0.0) * weight
    return [first + int(channel) for channel in np.argsort(-share, kind="stable")[:_WORST]]
