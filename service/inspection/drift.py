"""Drift: live rows of one version against its reference, window by window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from service.inspection.drift_report import Channel, DriftReport, LayerDrift, Scores
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

_MEANINGS: dict[State, str] = {
    "off": "Live rows are not looked at.",
    "warming": "Too few independent rows were seen to say anything.",
    "ok": "Live rows look like the reference.",
    "unlike training": "Live rows are far from what the network was trained on; augmentation in training "
    "alone can cause that, so it is no alarm. A baseline tells (foldserve calibrate).",
    "drifting": "What reaches the first norms has changed since the baseline was recorded.",
    "failed": "Looking at live rows failed; requests are answered as before. The log says why.",
}
_OTHER_CONTENT = " Only the last norms differ: other content or another class mix."


def unseen(model: str, version: int, state: State) -> DriftReport:
    """What is said of a version of which no row was looked at: it is `off`, or still `warming`."""
    return DriftReport(model=model, version=version, state=state, meaning=_MEANINGS[state])


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
        if window.rows >= self._patience:
            self._window, self._patience = self._fresh(), min(2 * self._patience, _MOST_PATIENCE)
        self.report = self.report.model_copy(update={"collected": self._window.rows})
        return False

    def fail(self) -> None:
        """Say from now on that it failed."""
        self.report, self.last = self._bare("failed"), None

    def _fresh(self) -> Window:
        return Window(self._watched, self._baseline.classes if self._baseline else 1)

    def _bare(self, state: State) -> DriftReport:
        baseline = self._baseline
        return DriftReport(
            **self._named,
            state=state,
            meaning=_MEANINGS[state],
            reference="baseline" if baseline else "frozen",
            baseline_rows=baseline.rows if baseline else None,
        )

    def _judged(self, window: Window, now: float) -> DriftReport:
        training = window.judged(self._frozen)
        rows, baseline = window.effective_rows, self._baseline
        judged, thresholds = training, (FROZEN_FLOOR, FROZEN_FLOOR)
        if baseline:
            judged = window.judged(baseline.reference(window.shares))
            thresholds = baseline.thresholds(rows, self._floor)
        self.last = LastWindow(self._watched, judged, now, window.rows, round(rows, 1))
        self._hysteresis.hear(float(judged.input), thresholds[0])
        state = self._state()
        is_other_content = (
            not self._hysteresis.is_up
            and _finite(judged.input, 0.0) <= thresholds[0]
            and _finite(judged.content, 0.0) > thresholds[1]
        )
        return self._bare(state).model_copy(
            update={
                "meaning": _MEANINGS[state] + _OTHER_CONTENT * is_other_content,
                "windows": self.report.windows + 1,
                "contrary": self._hysteresis.contrary,
                "judged_at": now,
                "n": window.rows,
                "n_eff": round(rows, 1),
                "scores": _scores(judged),
                "thresholds": Scores(input=thresholds[0], content=thresholds[1]),
                "training_scores": _scores(training),
                "layers": self._layers(judged, training),
            }
        )

    def _state(self) -> State:
        if not self._hysteresis.is_up:
            return "ok"
        return "drifting" if self._baseline else "unlike training"

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


def _finite(value: np.floating | np.ndarray | float, otherwise: float = 0.0) -> float:
    """A number that JSON has."""
    return float(value) if math.isfinite(value) else otherwise
