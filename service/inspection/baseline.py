"""The baseline: what live rows looked like when somebody accepted them, as statistics and quantiles only.

What a network sees depends on what is shown to it: a window of ones alone has other moments than one of all
digits. So the baseline keeps moments for each class that the network answered, and a window is compared with
those of its own classes, in its own shares. That takes a change of the class mix out of the input's score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from service.inspection.by_class import by_class
from service.inspection.moments import Moments, Sums, estimate
from service.inspection.shift import Reference
from service.inspection.texture import Texture
from service.inspection.window import judge, judge_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.inspection.watched import Watched

FEWEST_ROWS = 64
"""With fewer rows there is no baseline."""
SIZES = (64, 128, 256, 512)
"""The windows whose scores are drawn, in effective rows."""
_DRAWS = 2000
_QUANTILE = 0.999
_DRAWN_FROM = 1024
_LARGEST = 1 << 23
"""Numbers: of the classes' moments together, and of one step of drawing."""


@dataclass(frozen=True)
class Rows:
    """Rows whose inputs to the watched norms are known."""

    mean: np.ndarray
    """Of each row's pixels, `[N, C]`."""
    var: np.ndarray
    classes: np.ndarray
    """What the network answered, int `[N]`."""

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, chosen: slice | np.ndarray) -> Rows:
        return Rows(self.mean[chosen], self.var[chosen], self.classes[chosen])


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
        """What a window with these `shares` of classes, `[..., classes]`, is compared with."""
        inputs = self.class_mean.shape[1]
        m, q = shares @ self.class_mean, shares @ self.class_square
        mean = np.broadcast_to(self.mean, (*shares.shape[:-1], len(self.mean))).copy()
        var = np.broadcast_to(self.var, mean.shape).copy()
        rows = np.full(mean.shape, float(self.rows))
        mean[..., :inputs] += m
        var[..., :inputs] = np.maximum(q - m**2, 0.0)
        rows[..., :inputs] = 1 / (shares**2 / self.class_rows).sum(-1, keepdims=True)
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
        whole = Moments.of(rows.mean, rows.var, np.where(watched.weight > 0, watched.mean, 0.0)).estimate()
        inputs = int(watched.channels_of("input").sum())
        told_apart = classes if classes * inputs <= _LARGEST else 1
        numbers = rows.classes if told_apart > 1 else np.zeros(len(rows), int)
        m = rows.mean[:, :inputs] - whole.mean[:inputs]
        counts, mean = by_class(m, numbers, told_apart)
        _, square = by_class(rows.var[:, :inputs] + m**2, numbers, told_apart)
        texture = Texture.of(rows.var, whole.var, numbers, told_apart, watched)
        moments = (counts, mean.astype(np.float32), square.astype(np.float32))
        alone = _row_scores(rows, Reference(whole.mean, whole.var, len(rows)), watched)
        bare = cls(len(rows), whole.mean, whole.var, *moments, np.zeros((len(SIZES), 2)), alone, texture)
        drawn = _drawn(bare, Rows(rows.mean, rows.var, numbers), watched, np.random.default_rng(seed))
        return replace(bare, quantiles=drawn)

    def of_rows(self) -> dict[str, np.ndarray]:
        """What a single row is compared with, by name: `mean` and `var` of all rows, and `row_scores`."""
        return {name: getattr(self, name) for name in ("mean", "var", "row_scores")}

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name."""
        return {name: np.asarray(getattr(self, name)) for name in _NAMES} | self.texture.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], watched: Watched) -> Self:
        """What `arrays` gave, as far as these norms go; raises `ValueError` where it is not of them."""
        norms, channels = len(watched.norms), len(watched.mean)
        inputs = int(watched.channels_of("input").sum())
        try:
            texture = Texture.from_arrays(arrays, len(arrays["class_rows"]), inputs)
            rows, *moments = (arrays[name] for name in _NAMES)
            fields: list[Any] = [int(rows.flat[0]), *moments, texture]
            found = replace(cls(*fields), mean=moments[0][:channels], var=moments[1][:channels])
            found = replace(found, row_scores=found.row_scores[:norms])
        except (KeyError, TypeError, IndexError) as missing:
            raise ValueError(f"it holds no baseline ({missing})") from None
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
        if wrong or len(classes) != 1 or not (found.class_rows > 0).all() or found.rows < FEWEST_ROWS:
            raise ValueError(f"it is of other norms ({', '.join(wrong) or 'class_rows'})")
        return found


_NAMES = ("rows", "mean", "var", "class_rows", "class_mean", "class_square", "quantiles", "row_scores")


def _row_scores(rows: Rows, reference: Reference, watched: Watched) -> np.ndarray:
    """The median over the rows of what each alone scores at every norm."""
    at_once = max(1, _LARGEST // (8 * rows.mean.shape[1]))
    parts = [rows[first : first + at_once] for first in range(0, len(rows), at_once)]
    found = [judge_rows(part.mean, part.var, reference, watched).layers for part in parts]
    median: np.ndarray = np.median(np.concatenate(found), axis=0)
    return median


def _drawn(bare: Baseline, rows: Rows, watched: Watched, random: np.random.Generator) -> np.ndarray:
    """What windows that are drawn from the accepted rows themselves score: `[sizes, 2]`."""
    few = rows[random.permutation(len(rows))[:_DRAWN_FROM]]
    m = few.mean.astype(np.float64) - bare.mean
    q = few.var + m**2
    products = np.concatenate([m, q, m * m, m * q, q * q], axis=1)
    of_class = np.eye(bare.classes)[few.classes] if bare.classes > 1 else np.ones((len(few), 1))
    found = np.zeros((len(SIZES), 2))
    for number, size in enumerate(SIZES):
        drawn: list[tuple[float, float]] = []
        for counts in _counts(len(few), size, m.shape[1], random):
            sums = Sums(*np.split(counts @ products, 5, axis=1))
            reference = bare.reference(counts @ of_class / size)
            live = estimate(sums, size, bare.mean)
            judged = judge(live, Reference(reference.mean, reference.var, np.inf), watched, size)
            drawn += judged.of_each()
        found[number] = np.quantile(np.array(drawn), _QUANTILE, axis=0)
    return found


def _counts(rows: int, size: int, channels: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """How often every row is in each window, a few windows at a time."""
    at_once = max(1, min(_DRAWS, _LARGEST // (5 * channels)))
    for first in range(0, _DRAWS, at_once):
        windows = min(at_once, _DRAWS - first)
        yield random.multinomial(size, np.full(rows, 1 / rows), windows).astype(np.float64)
