"""The window: rows that are judged together, apart from all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.inspection.moments import Estimate, Moments
from service.inspection.quota import Quota, effective
from service.inspection.shift import Reference, Shift, scores, shift

if TYPE_CHECKING:
    from service.inspection.texture import Texture
    from service.inspection.watched import Watched

ROWS = 128
"""The rows that a window is offered at least."""
ENOUGH_ROWS = 64
"""Of independent ones: with fewer nothing is said."""
ENOUGH_ERROR = 0.1
"""The median standard error of delta, at the input, above which nothing is said either."""
_LOOKED_AT_EVERY = 16


@dataclass(frozen=True)
class Judgement:
    """Samples against a reference; `[...]` for as many as were judged at once, usually one."""

    shift: Shift
    layers: np.ndarray
    """The score of every watched norm, `[..., norms]`."""
    input: np.ndarray
    content: np.ndarray
    """Not a number where no norm of the last third is watched."""
    live: Estimate
    reference: Reference


class Window:
    """Takes rows until it says enough."""

    def __init__(self, watched: Watched, classes: int = 1, texture: Texture | None = None) -> None:
        self._watched = watched
        self._texture = texture
        # The mutable state: what was added up, of whom, and where it was last looked whether that is enough.
        self.quota = Quota(ROWS)
        self._class_rows = np.zeros(classes)
        self._moments = Moments(np.where(watched.weight > 0, watched.mean, 0.0))
        self._logs = np.zeros(len(texture.channels) if texture else 0)
        self._looked_at = 0

    def add(self, mean: np.ndarray, var: np.ndarray, classes: np.ndarray) -> None:
        """Add rows that the quota admitted, in order: `[N, C]` and what the network answered, int `[N]`.

        Rows that are not finite are left out.
        """
        finite = np.isfinite(mean).all(1) & np.isfinite(var).all(1)
        self._moments.add(mean[finite], var[finite])
        if self._texture:
            self._logs += self._texture.logs(var[finite]).sum(0)
        number = np.minimum(classes[finite], len(self._class_rows) - 1)
        self._class_rows += np.bincount(number, minlength=len(self._class_rows))

    @property
    def rows(self) -> int:
        """That count."""
        return self._moments.rows

    @property
    def shares(self) -> np.ndarray:
        """Of the classes: `[classes]`, 1 in all."""
        return self._class_rows / max(self.rows, 1)

    @property
    def effective_rows(self) -> float:
        """How many independent ones they are worth."""
        watched = self._watched
        with np.errstate(all="ignore"):
            weight = watched.weight * watched.channels_of("input") / (watched.var + watched.eps)
        return effective(self.rows, self._moments.autocorrelation(np.nan_to_num(weight)))

    def is_complete(self) -> bool:
        """Whether enough is known; looked at now and then, since it takes a pass over all channels."""
        offered = self.quota.offered
        if offered < ROWS or offered - self._looked_at < _LOOKED_AT_EVERY or self.rows < ENOUGH_ROWS:
            return False
        self._looked_at = offered
        rows = self.effective_rows
        return rows >= ENOUGH_ROWS and self._error(rows) <= ENOUGH_ERROR

    def judged(self, reference: Reference) -> Judgement:
        """This window against a reference."""
        return judge(self._moments.estimate(), reference, self._watched, self.effective_rows)

    def texture(self) -> tuple[float, float]:
        """The score and the threshold of what varies within rows; of a window that was given a texture."""
        if self._texture is None:
            raise ValueError("this window has no texture to compare its rows with")
        return self._texture.judged(self._logs / self.rows, self.shares, self.effective_rows)

    def _error(self, rows: float) -> float:
        """In units of the live spread where that is the larger: what is far off is known soon enough."""
        watched, live = self._watched, self._moments.estimate()
        seen = watched.channels_of("input") & (watched.weight > 0)
        if not seen.any():
            return 0.0
        var = (np.maximum(watched.var, live.var) + watched.eps)[seen]
        return float(np.median(np.sqrt(live.spread_of_mean[seen] / var / rows)))


def judge(live: Estimate, reference: Reference, watched: Watched, rows: float) -> Judgement:
    """A sample, worth so many independent rows, against a reference."""
    found = shift(live, reference, watched.eps, rows)
    layers = scores(found, watched)
    return Judgement(found, layers, *of_parts(layers, watched), live, reference)


def of_parts(layers: np.ndarray, watched: Watched) -> tuple[np.ndarray, np.ndarray]:
    """`input` and `content`: the means of the scores `[..., norms]` of the norms of each; nan for none."""
    return _mean(layers[..., watched.of("input")]), _mean(layers[..., watched.of("content")])


def judge_rows(mean: np.ndarray, var: np.ndarray, reference: Reference, watched: Watched) -> Judgement:
    """Every row alone against a reference: `[N, C]` moments of each row's own pixels, which have no error.

    Where a row has but one value, nothing is said of its variance: it counts as the reference's.
    """
    none = np.zeros(mean.shape)
    own = np.where(watched.has_pixels, var.astype(np.float64), reference.var)
    return judge(Estimate(mean.astype(np.float64), own, none, none), reference, watched, 1)


def _mean(layers: np.ndarray) -> np.ndarray:
    return np.asarray(layers.mean(-1) if layers.shape[-1] else np.full(layers.shape[:-1], np.nan))
