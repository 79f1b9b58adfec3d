"""Drift: live rows of one version against its reference, window by window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from service.inspection.drift_report import (
    MEANINGS,
    OTHER_CONTENT,
    OTHER_TEXTURE,
    Channel,
    DriftReport,
    LayerDrift,
    Scores,
)
from service.inspection.hysteresis import Hysteresis
from service.inspection.last_window import LastWindow
from service.inspection.shift import Reference, worst
from service.inspection.window import Window

if TYPE_CHECKING:
    import numpy as np

    from service.inspection.baseline import Baseline
    from service.inspection.drift_report import State
    from service.inspection.watched import Watched
    from service.inspection.window import Judgement

FROZEN_FLOOR = 0.05
"""The threshold without a baseline."""
_PATIENCE = 192
"""Rows of a window that do not say enough, after which it is given up and the next may have twice as many.
Rows before and after a change, in one window, look as if each was much like the one before it."""
_MOST_PATIENCE = 64 * _PATIENCE


class Drift:
    """Fills windows with rows and keeps the state that they amount to."""

    def __init__(
        self, model: str, version: int, watched: Watched, baseline: Baseline | None, floor: float
    ) -> None:
        """`floor`: the least threshold with a baseline."""
        self._named = {"model": model, "version": version}
        self._watched = watched
        self._baseline = baseline
        self._floor = floor
        self._frozen = Reference(watched.mean, watched.var, watched.rows)
        # The mutable state: the window that is being filled, what those before it came to, what is said.
        self._window = self._fresh()
        self._patience = _PATIENCE
        self._hysteresis = Hysteresis()
        self.report = self._bare("warming")
        self.last: LastWindow | None = None

    @property
    def watched(self) -> Watched:
        """What is looked at."""
        return self._watched

    @property
    def window(self) -> Window:
        """The one that is being filled."""
        return self._window

    def add(self, mean: np.ndarray, var: np.ndarray, classes: np.ndarray, now: float) -> bool:
        """Add rows that the window's quota admitted; whether that made a new judgement.

        `[N, C]` means and variances over each row's pixels at the watched norms, int `[N]` answers, and the
        time in seconds since the epoch.
        """
        window = self._window
        window.add(mean, var, classes)
        if window.is_complete():
            self.report, self._window = self._judged(window, now), self._fresh()
            self._patience = _PATIENCE
            return True
        if window.quota.admitted >= self._patience:  # also of rows that are not finite, and in no sum
            self._window, self._patience = self._fresh(), min(2 * self._patience, _MOST_PATIENCE)
        self.report = self.report.model_copy(update={"collected": self._window.rows})
        return False

    def against(self, baseline: Baseline) -> Drift:
        """The same norms from the beginning, compared with this baseline."""
        return Drift(self.report.model, self.report.version, self._watched, baseline, self._floor)

    def fail(self) -> None:
        """Say from now on that it failed."""
        self.report, self.last = self._bare("failed"), None

    def _fresh(self) -> Window:
        if self._baseline is None:
            return Window(self._watched)
        return Window(self._watched, self._baseline.classes, self._baseline.texture)

    def _bare(self, state: State) -> DriftReport:
        baseline = self._baseline
        return DriftReport(
            **self._named,
            state=state,
            meaning=MEANINGS[state],
            reference="baseline" if baseline else "frozen",
            baseline_rows=baseline.rows if baseline else None,
        )

    def _judged(self, window: Window, now: float) -> DriftReport:
        training = window.judged(self._frozen)
        judged, scores, thresholds = self._compared(window, training)
        rows = round(window.effective_rows, 1)
        self.last = LastWindow(self._watched, judged, now, window.rows, rows)
        self._hysteresis.hear(_height(scores, thresholds), 1.0)
        state = self._state()
        return self._bare(state).model_copy(
            update={
                "meaning": MEANINGS[state] + self._more(scores, thresholds),
                "windows": self.report.windows + 1,
                "contrary": self._hysteresis.contrary,
                "judged_at": now,
                "n": window.rows,
                "n_eff": rows,
                "scores": scores,
                "thresholds": thresholds,
                "training_scores": _scores(training),
                "layers": self._layers(judged, training),
            }
        )

    def _compared(self, window: Window, training: Judgement) -> tuple[Judgement, Scores, Scores]:
        """The window against the reference that decides: what it scores, and what it may."""
        baseline, floor = self._baseline, self._floor
        if baseline is None:
            return training, _scores(training), Scores(input=FROZEN_FLOOR, content=FROZEN_FLOOR)
        judged = window.judged(baseline.reference(window.shares))
        low, high = baseline.thresholds(window.effective_rows, floor)
        texture, limit = window.texture()
        scores = _scores(judged).model_copy(update={"texture": _finite(texture)})
        return judged, scores, Scores(input=low, content=high, texture=max(limit, floor))

    def _more(self, scores: Scores, thresholds: Scores) -> str:
        """What is known beyond the state."""
        is_input = _above(scores.input, thresholds.input)
        if self._hysteresis.is_up:
            return OTHER_TEXTURE * (not is_input and _above(scores.texture, thresholds.texture))
        is_calm = _height(scores, thresholds) <= 1
        return OTHER_CONTENT * (is_calm and _above(scores.content, thresholds.content))

    def _state(self) -> State:
        if self._hysteresis.is_up:
            return "drifting" if self._baseline else "unlike training"
        is_open = self.report.state == "warming" and self._hysteresis.contrary > 0
        return "warming" if is_open else "ok"

    def _layers(self, judged: Judgement, training: Judgement) -> list[LayerDrift]:
        return [
            LayerDrift(
                name=norm.name,
                part=norm.part,
                score=_finite(judged.layers[number]),
                training_score=_finite(training.layers[number]),
                worst=self._worst(number, judged),
            )
            for number, norm in enumerate(self._watched.norms)
        ]

    def _worst(self, number: int, judged: Judgement) -> list[Channel]:
        first, shift, z = int(self._watched.starts[number]), judged.shift, judged.shift.z
        return [
            Channel(
                channel=channel - first,
                delta=_finite(shift.delta[channel]),
                log_ratio=_finite(shift.log_ratio[channel]),
                z=_finite(z[channel]),
            )
            for channel in worst(shift.divergence, self._watched, number)
        ]


def _scores(judged: Judgement) -> Scores:
    content = float(judged.content)
    return Scores(input=float(judged.input), content=content if math.isfinite(content) else None)


def _height(scores: Scores, thresholds: Scores) -> float:
    """The scores that may alarm in units of their thresholds: the larger."""
    texture = (scores.texture or 0.0) / (thresholds.texture or 1.0)
    return max(_finite(scores.input / thresholds.input), texture)


def _above(score: float | None, threshold: float | None) -> bool:
    return score is not None and threshold is not None and score > threshold


def _finite(value: np.floating | np.ndarray | float, otherwise: float = 0.0) -> float:
    """A number that JSON has."""
    return float(value) if math.isfinite(value) else otherwise
