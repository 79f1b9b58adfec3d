"""The bootstrap: what windows score that are drawn from the accepted rows themselves.

It takes some channels at a time: what it needs beside the rows does not grow with the width of a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.inspection.moments import Sums, estimate
from service.inspection.pieces import pieces
from service.inspection.shift import Reference, scores, shift
from service.inspection.window import of_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.inspection.moments import Estimate
    from service.inspection.rows import Rows
    from service.inspection.watched import Watched

    References = Callable[[np.ndarray, np.ndarray, slice], Reference]

SIZES = (64, 128, 256, 512)
"""The windows whose scores are drawn, in effective rows."""
_DRAWS = 2000
_DRAWS_AT_ONCE = 500
_DRAWN_FROM = 1024
_QUANTILE = 0.999


def quantiles(
    references: References, pivot: np.ndarray, rows: Rows, watched: Watched, random: np.random.Generator
) -> np.ndarray:
    """What 99.9 % of the windows of each size score at most: float64 `[sizes, 2]`, `input` and `content`.

    `references`: what windows with such shares of such classes are compared with, at some channels; `pivot`
    `[C]`: near the means.
    """
    few = rows[random.permutation(len(rows))[:_DRAWN_FROM]]
    found = np.zeros((len(SIZES), 2))
    for number, size in enumerate(SIZES):
        layers = [
            _layers(references, pivot, few, watched, counts) for counts in _counts(len(few), size, random)
        ]
        parts = of_parts(np.concatenate(layers), watched)
        found[number] = np.quantile(np.nan_to_num(np.stack(parts)), _QUANTILE, axis=1)
    return found


def _counts(rows: int, size: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """How often every row is in each window, some windows at a time: `[windows, N]`."""
    for _ in range(0, _DRAWS, _DRAWS_AT_ONCE):
        yield random.multinomial(size, np.full(rows, 1 / rows), _DRAWS_AT_ONCE).astype(np.float64)


def _layers(
    references: References, pivot: np.ndarray, rows: Rows, watched: Watched, counts: np.ndarray
) -> np.ndarray:
    """What windows score at every norm, `[windows, norms]`."""
    size = float(counts[0].sum())
    classes, of_row = np.unique(rows.classes, return_inverse=True)
    shares = counts @ np.eye(len(classes))[of_row] / size
    layers = np.zeros((len(counts), len(watched.norms)))
    for channels in pieces(len(watched.mean), max(counts.shape)):
        live = _live(pivot[channels], rows, channels, counts, size)
        reference = references(shares, classes, channels)
        free = Reference(reference.mean, reference.var, np.inf)
        layers += scores(shift(live, free, watched.eps[channels], size), watched, channels)
    return layers


def _live(pivot: np.ndarray, rows: Rows, channels: slice, counts: np.ndarray, size: float) -> Estimate:
    m = rows.mean[:, channels].astype(np.float64) - pivot
    q = rows.var[:, channels] + m**2
    sums = Sums(*(counts @ products for products in (m, q, m * m, m * q, q * q)))
    return estimate(sums, size, pivot)
