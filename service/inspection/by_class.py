"""By class: means over the rows of each class that the network answered."""

from __future__ import annotations

import numpy as np

_ENOUGH = 8
"""A class of fewer rows counts as all rows."""


def by_class(values: np.ndarray, classes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `values` `[N, C]` and int `[N]` answers: how many rows stand behind each of `count` classes, and
    their means, float64 `[count, C]`. For a class of fewer than 8 rows both are those of all rows."""
    rows = np.bincount(classes, minlength=count)
    means = np.tile(values.mean(0, dtype=np.float64), (count, 1))
    for number in np.flatnonzero(rows >= _ENOUGH):
        means[number] = values[classes == number].mean(0, dtype=np.float64)
    return np.where(rows >= _ENOUGH, rows, len(values)), means
