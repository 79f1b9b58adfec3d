"""The baseline: what live rows looked like when somebody accepted them, as statistics and quantiles only.

What a network sees depends on what is shown to it: a window of ones alone has other moments than one of all
digits. So the baseline keeps moments for each class that the network answered, and a window is compared with
those of its own classes, in its own shares. That takes a change of the class mix out of the input's score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from service.inspection import bootstrap
from service.inspection.bootstrap import SIZES
from service.inspection.by_class import by_class
from service.inspection.moments import Moments
from service.inspection.pieces import pieces
from service.inspection.shift import Reference
from service.inspection.stored_arrays import sound
from service.inspection.texture import Texture
from service.inspection.window import judge_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.inspection.moments import Estimate
    from service.inspection.rows import Rows
    from service.inspection.watched import Watched

FEWEST_ROWS = 64
"""With fewer rows there is no baseline."""
_LARGEST = 1 << 23
"""Numbers: of the classes' moments together."""


@dataclass(frozen=True)
class Baseline:
    """Moments of accepted rows, by channel, and for the input's channels by class."""

    rows: int
    mean: np.ndarray
    """float64 `[C]`, over all rows."""
    var: np.ndarray
    class_rows: np.ndarray
    """int `[classes]`; classes of too few rows count as all rows."""
    class_mean: np.ndarray
    """float32 `[classes, C of the input]`, from `mean` on."""
    class_square: np.ndarray
    """The same of the squares of x - `mean`."""
    quantiles: np.ndarray
    """float64 `[sizes, 2]`: what 99.9 % of such windows of accepted rows score, `input` and `content`."""
    row_scores: np.ndarray
    """float64 `[norms]`: what half of the accepted rows, each alone, score at most, against all rows."""
    texture: Texture
    """How much the pixels varied within each row."""

    @property
    def classes(self) -> int:
        """How many are told apart."""
        return len(self.class_rows)

    def reference(self, shares: np.ndarray) -> Reference:
        """What a window with these `shares` of classes, `[classes]`, is compared with."""
        present = np.flatnonzero(shares)
        return self.of_classes(shares[present], present)

    def of_classes(self, shares: np.ndarray, classes: np.ndarray, channels: slice = slice(None)) -> Reference:
        """The same of windows with `shares` `[..., k]` of the k classes that are in any, at some channels."""
        m = shares @ self.class_mean[classes, channels]
        q = shares @ self.class_square[classes, channels]
        inputs = m.shape[-1]
        mean = np.broadcast_to(self.mean[channels], (*shares.shape[:-1], len(self.mean[channels]))).copy()
        var = np.broadcast_to(self.var[channels], mean.shape).copy()
        rows = np.full(mean.shape, float(self.rows))
        mean[..., :inputs] += m
        var[..., :inputs] = np.maximum(q - m**2, 0.0)
        rows[..., :inputs] = 1 / (shares**2 / self.class_rows[classes]).sum(-1, keepdims=True)
        return Reference(mean, var, rows)

    def thresholds(self, rows: float, floor: float) -> tuple[float, float]:
        """For `input` and `content`, of a window worth so many rows; never below `floor`."""
        at = np.log(min(max(rows, SIZES[0]), SIZES[-1]))
        low, high = (float(np.interp(at, np.log(SIZES), column)) for column in self.quantiles.T)
        return max(low, floor), max(high, floor)

    @classmethod
    def of(cls, rows: Rows, watched: Watched, classes: int, seed: int = 0) -> Self:
        """The baseline of accepted rows; raises `ValueError` for fewer than 64."""
        if len(rows) < FEWEST_ROWS:
            raise ValueError(f"a baseline takes {FEWEST_ROWS} rows or more, not {len(rows)}")
        whole = _whole(rows, watched)
        inputs = int(watched.channels_of("input").sum())
        told_apart = classes if classes * inputs <= _LARGEST else 1
        told = replace(rows, classes=rows.classes if told_apart > 1 else np.zeros(len(rows), int))
        moments = _of_classes(told, whole.mean[:inputs], told_apart)
        texture = Texture.of(rows.var, whole.var, told.classes, told_apart, watched)
        alone = _row_scores(rows, Reference(whole.mean, whole.var, len(rows)), watched)
        bare = cls(len(rows), whole.mean, whole.var, *moments, np.zeros((len(SIZES), 2)), alone, texture)
        drawn = bootstrap.quantiles(bare.of_classes, whole.mean, told, watched, np.random.default_rng(seed))
        return replace(bare, quantiles=drawn)

    def of_rows(self) -> dict[str, np.ndarray]:
        """What a single row is compared with, by name: `mean` and `var` of all rows, and `row_scores`."""
        return {name: getattr(self, name) for name in ("mean", "var", "row_scores")}

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name."""
        return {name: np.asarray(getattr(self, name)) for name in _DTYPES} | self.texture.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], watched: Watched) -> Self:
        """What `arrays` gave, as far as these norms go; raises `ValueError` where it is not of them."""
        norms, channels = len(watched.norms), len(watched.mean)
        inputs = int(watched.channels_of("input").sum())
        rows, *moments = sound(arrays, _DTYPES)
        texture = Texture.from_arrays(arrays, moments[2].size, inputs)
        fields: list[Any] = [int(rows.flat[0]) if rows.size == 1 else 0, *moments, texture]
        found = cls(*fields)
        found = replace(found, mean=found.mean.ravel()[:channels], var=found.var.ravel()[:channels])
        found = replace(found, row_scores=found.row_scores.ravel()[:norms])
        classes = found.class_rows.shape
        shapes = {
            "mean": (channels,),
            "var": (channels,),
            "class_mean": (*classes, inputs),
            "class_square": (*classes, inputs),
            "quantiles": (len(SIZES), 2),
            "row_scores": (norms,),
        }
        wrong = [name for name, shape in shapes.items() if getattr(found, name).shape != shape]
        wrong += ["var"] * bool((found.var < 0).any())
        if wrong or len(classes) != 1 or not (found.class_rows > 0).all() or found.rows < FEWEST_ROWS:
            raise ValueError(f"it is of other norms ({', '.join(wrong) or 'class_rows'})")
        return found


_DTYPES = {
    "rows": "i8",
    "mean": "f8",
    "var": "f8",
    "class_rows": "i8",
    "class_mean": "f4",
    "class_square": "f4",
    "quantiles": "f8",
    "row_scores": "f8",
}


def _whole(rows: Rows, watched: Watched) -> Estimate:
    """Of all pixels of all rows."""
    moments = Moments(np.where(watched.weight > 0, watched.mean, 0.0))
    for few in pieces(len(rows), rows.mean.shape[1]):
        moments.add(rows.mean[few], rows.var[few])
    return moments.estimate()


def _of_classes(rows: Rows, pivot: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many rows stand behind each class, and their moments from `pivot` on, at as many channels."""
    counts = np.zeros(classes, int)
    mean, square = (np.zeros((classes, len(pivot)), np.float32) for _ in range(2))
    for few in pieces(len(pivot), max(len(rows), classes)):
        m = rows.mean[:, few] - pivot[few]
        counts, mean[:, few] = by_class(m, rows.classes, classes)
        _, square[:, few] = by_class(rows.var[:, few] + m**2, rows.classes, classes)
    return counts, mean, square


def _row_scores(rows: Rows, reference: Reference, watched: Watched) -> np.ndarray:
    """The median over the rows of what each alone scores at every norm."""
    parts = [rows[few] for few in pieces(len(rows), rows.mean.shape[1])]
    found = [judge_rows(part.mean, part.var, reference, watched).layers for part in parts]
    median: np.ndarray = np.median(np.concatenate(found), axis=0)
    return median
