"""Texture: how much the pixels vary within each row, against what that was in accepted rows.

Rows of any colour and contrast differ so much from each other that noise and blur are lost beside it. But
rows differ in few ways: one of twice the contrast varies twice as much in all channels. What noise does is
none of these ways. So the distance is measured in units of the rows' own spread along each direction: it is
Mahalanobis' distance, of the logarithms of the variances within rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from service.inspection.by_class import by_class
from service.inspection.stored_arrays import sound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.inspection.watched import Watched

MOST_CHANNELS = 128
"""Those with the largest gamma² of each norm at the input, as many of each."""
_FLOOR = 0.01
"""Of a channel's variance, added to that within each row: a blank row is not infinitely far away."""
_LEAST_SPREAD = 0.02
"""Added to the spread along every direction: a change by less than its root, 14 %, does not count for more
where all accepted rows are alike."""
_SPLITS = 300
_SPLIT_FROM = 1024
_ROWS = 128
_QUANTILE = 0.999


class Model(NamedTuple):
    """What the logarithms of p channels were in accepted rows."""

    class_rows: np.ndarray
    """int `[classes]`."""
    class_mean: np.ndarray
    """float64 `[classes, p]`."""
    inverse: np.ndarray
    """Of the rows' covariance about their classes' means, and of the least spread: float64 `[p, p]`."""
    chance: float
    """How far away one row is expected to be, squared."""

    @classmethod
    def of(cls, logs: np.ndarray, classes: np.ndarray, count: int) -> Self:
        """Of accepted rows `[N, p]` and their classes."""
        rows, means = by_class(logs, classes, count)
        away = logs - means[classes]
        covariance = away.T @ away / len(logs)
        inverse = np.linalg.inv(covariance + _LEAST_SPREAD * np.eye(len(covariance)))
        return cls(rows, means, inverse, float((inverse * covariance).sum()))

    def error(self, shares: np.ndarray, rows: float) -> float:
        """1/n + 1/n_ref: of a window worth `rows` rows, and of the classes it consists of."""
        return float(1 / rows + (shares**2 / self.class_rows).sum())

    def distance(self, mean: np.ndarray, shares: np.ndarray, rows: float) -> float:
        """The squared distance of a window's mean `[p]`, less what sampling alone would show."""
        away = mean - shares @ self.class_mean
        return float(away @ self.inverse @ away - self.chance * self.error(shares, rows))


@dataclass(frozen=True)
class Texture:
    """The model, and how far windows of accepted rows are from that of other accepted rows."""

    channels: np.ndarray
    """int `[p]`, of those that are watched."""
    floor: np.ndarray
    """float64 `[p]`: added to the variance within a row before its logarithm is taken."""
    model: Model
    limit: float
    """What 99.9 % of them stay below, in units of the error."""

    def logs(self, var: np.ndarray) -> np.ndarray:
        """Of the variances over each row's pixels, `[N, C]`: float64 `[N, p]`."""
        logs: np.ndarray = np.log(var[:, self.channels] + self.floor)
        return logs

    def judged(self, mean: np.ndarray, shares: np.ndarray, rows: float) -> tuple[float, float]:
        """The score and the threshold of a window: the mean of its logs, its classes, its worth in rows."""
        return self.model.distance(mean, shares, rows), self.limit * self.model.error(shares, rows)

    @classmethod
    def of(
        cls, var: np.ndarray, whole: np.ndarray, classes: np.ndarray, count: int, watched: Watched
    ) -> Self:
        """Of accepted rows: `[N, C]` variances over each row's pixels, and `[C]` over those of all rows."""
        channels = _chosen(watched)
        floor = np.maximum(_FLOOR * whole + watched.eps, np.finfo(np.float32).tiny)[channels]
        logs = np.log(var[:, channels] + floor)
        limit = float(np.quantile(list(_scores(logs, classes, count)), _QUANTILE))
        return cls(channels, floor, Model.of(logs, classes, count), limit)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name."""
        numbers = np.array([self.model.chance, self.limit])
        arrays = (self.channels, self.floor, *self.model[:3], numbers)
        return dict(zip(_DTYPES, arrays, strict=True))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], classes: int, inputs: int) -> Self:
        """What `arrays` gave; raises `ValueError` where it is not of so many channels."""
        channels, floor, class_rows, class_mean, inverse, numbers = sound(arrays, _DTYPES)
        of = channels.size
        shapes = [(of,), (of,), (classes,), (classes, of), (of, of), (2,)]
        found = [array.shape for array in (channels, floor, class_rows, class_mean, inverse, numbers)]
        is_there = bool(((channels >= 0) & (channels < inputs)).all())
        if found != shapes or not is_there or not (floor > 0).all() or not (class_rows > 0).all():
            raise ValueError("it is of other norms (texture)")
        chance, limit = numbers.tolist()
        return cls(channels, floor, Model(class_rows, class_mean, inverse, chance), limit)


_DTYPES = {
    "texture_channels": "i8",
    "texture_floor": "f8",
    "texture_class_rows": "i8",
    "texture_class_mean": "f8",
    "texture_inverse": "f8",
    "texture_numbers": "f8",
}


def _chosen(watched: Watched) -> np.ndarray:
    """The channels that are looked at, in order."""
    norms = np.flatnonzero(watched.of("input"))
    of_each = MOST_CHANNELS // max(len(norms), 1)
    chosen: list[int] = []
    for number in norms:
        first = int(watched.starts[number])
        weight = watched.weight[first : first + len(watched.norms[number].mean)]
        heaviest = np.argsort(-weight, kind="stable")[:of_each]
        chosen += (first + heaviest[weight[heaviest] > 0]).tolist()
    return np.array(sorted(chosen), int)


def _scores(logs: np.ndarray, classes: np.ndarray, count: int) -> Iterator[float]:
    """How far windows of one half of the rows are from the other half, in units of the error.

    A model fits its own rows better than any others: in windows of its own rows the score is too small.
    """
    random = np.random.default_rng(0)
    for _ in range(_SPLITS):
        first, second = np.array_split(random.permutation(len(logs))[:_SPLIT_FROM], 2)
        model = Model.of(logs[first], classes[first], count)
        for window in np.array_split(second, max(2, len(second) // _ROWS)):
            shares = np.bincount(classes[window], minlength=count) / len(window)
            away = model.distance(logs[window].mean(0), shares, len(window))
            yield away / model.error(shares, len(window))
