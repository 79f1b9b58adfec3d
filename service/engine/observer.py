"""The observer: looks at rows of one version that were drawn from those that are answered."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from typing import TYPE_CHECKING

import numpy as np

from service.engine.draw import Draw
from service.inspection.recent_rows import RecentRows

if TYPE_CHECKING:
    from service.engine.card import ModelKey
    from service.engine.watching import Watching
    from service.inspection.baseline import Baseline
    from service.inspection.drift import Drift
    from service.inspection.drift_report import DriftReport, Scores

log = logging.getLogger("foldserve.engine")

_LONGEST_CALL_S = 0.001
_MOST_ROWS = 8
_TELLS_EVERY_S = 1.0
_LEARNS = 0.1
"""How much the time of the last rows weighs in what a row is thought to take."""


class Observer:
    """Fills the windows of one version with what its norms saw of the rows in `draw`."""

    def __init__(self, key: ModelKey, watching: Watching, share: float) -> None:
        self.key = key
        self.drift: Drift = watching.drift
        self._observation = watching.observation
        self._secret = os.urandom(16)  # digests of rows say nothing to anybody else
        row_s, rows_at_once = self._measured(watching.probe)
        self.draw = Draw(share, rows_at_once, row_s)
        # The mutable state: what was seen of late, the answers to the rows under way and their digests, and
        # how often in a row it failed.
        self.recent = RecentRows(self.drift.watched)
        self.failures = 0
        self._spent_s = 0.0
        self._answers: list[int] = []
        self._digests: list[bytes] = []
        self._told_at = 0.0

    @property
    def is_running(self) -> bool:
        """Whether rows are under way; of norms that read the input there is no call to make."""
        return bool(self._answers)

    @property
    def has_work(self) -> bool:
        """Whether a row waits or is under way."""
        return bool(self.draw.waiting) or self.is_running

    def work(self, until: float) -> Drift | None:
        """Make a few calls for the rows under way, or begin with the next; the drift where there is news."""
        started = time.monotonic()
        if not self.is_running:
            self._begin()
            self._spent_s = time.monotonic() - started
            return None
        self._observation.run(until)
        is_through = not self._observation.is_running
        news = self._finished() if is_through else None
        self._spent_s += time.monotonic() - started
        if is_through:
            self.draw.row_s += (self._spent_s / len(self._answers) - self.draw.row_s) * _LEARNS
            self._answers = []
        return news

    def _finished(self) -> Drift | None:
        mean, var = self._observation.finished()
        answers = np.array(self._answers)
        before = self.drift.report.state
        self.recent.add(mean, var, answers, self._digests)
        is_news = self.drift.add(mean, var, answers, time.time())
        if is_news:
            self.recent.end_window(is_change=self.drift.report.state != before)
        self.failures = 0
        _log_change(self.key, before, self.drift.report)
        now = time.monotonic()
        if not is_news and now - self._told_at < _TELLS_EVERY_S:
            return None
        self._told_at = now
        return self.drift

    def accept(self, baseline: Baseline) -> None:
        """Compare rows with this baseline from now on, from an empty window."""
        self.give_up_rows()
        self.drift = self.drift.against(baseline)

    def give_up_rows(self) -> None:
        """Forget all rows that wait or are under way."""
        self.draw.forget()
        self._answers, self._digests = [], []
        self._observation.forget()

    def _begin(self) -> None:
        """Take the rows that wait and count, as far as they are of one dtype."""
        quota, taken = self.drift.window.quota, self.draw.take()
        digests = [self._digest(one.row) for one in taken]
        counted = [
            (one, digest)
            for one, digest in zip(taken, digests, strict=True)
            if quota.admits(digest, one.client)
        ]
        self._answers = [one.answer for one, _ in counted]
        self._digests = [digest for _, digest in counted]
        if counted:
            self._observation.begin(np.concatenate([one.row for one, _ in counted]))

    def _digest(self, row: np.ndarray) -> bytes:
        return hashlib.blake2b(row.tobytes(), digest_size=8, key=self._secret).digest()

    def _measured(self, probe: np.ndarray) -> tuple[float, int]:
        """The seconds that a row takes, and how many rows at once keep every call short."""
        longest = whole = 0.0
        for _ in range(2):  # the first is slower than all others
            self._observation.begin(probe)
            longest = whole = 0.0
            while self._observation.is_running:
                started = time.monotonic()
                self._observation.run(0.0)
                longest = max(longest, time.monotonic() - started)
                whole += time.monotonic() - started
            started = time.monotonic()
            self._observation.finished()
            whole += time.monotonic() - started
        return max(whole, 1e-6), max(1, min(_MOST_ROWS, int(_LONGEST_CALL_S / max(longest, 1e-9))))


def _log_change(key: ModelKey, before: str, report: DriftReport) -> None:
    if report.state == before or report.scores is None or report.thresholds is None:
        return
    log.log(
        logging.WARNING if report.state == "drifting" else logging.INFO,
        "%s/%s: drift state %s, was %s: %s, %d rows against the %s statistics",
        *(*key, report.state, before, _numbers(report.scores, report.thresholds)),
        *(report.n, report.reference),
    )


def _numbers(scores: Scores, thresholds: Scores) -> str:
    said = f"input {scores.input:.4f}, threshold {thresholds.input:.4f}"
    if scores.texture is None or thresholds.texture is None:
        return said
    return f"{said}, texture {scores.texture:.4f}, threshold {thresholds.texture:.4f}"
