"""The sampler: a few of the rows that are answered also run through the unfolded network, as time allows.

It belongs to the engine's thread, does a small piece of work whenever it is asked to, and never raises: what
goes wrong in it is logged and counted, and requests are answered as before.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from service.engine.budget import Budget
from service.engine.observer import Observer
from service.inspection.drift_report import unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from service.batching.job import Part
    from service.engine.card import ModelKey
    from service.engine.linked_job import LinkedJob
    from service.engine.watching import Watching
    from service.inspection.baseline import Baseline
    from service.inspection.notices import Notices
    from service.inspection.recent_rows import Snapshot
    from service.telemetry import Telemetry

log = logging.getLogger("foldserve.engine")

_PIECE_S = 0.0005
_BUSY_SHARE = 0.1
"""Of the time that it may take, what it takes even though rows wait."""
_FAILURES = 3
"""In a row, after which a version is looked at no more."""
_BROKE = "%s/%s: looking at live rows failed"


class Sampler:
    """Looks at all versions that it was told of."""

    def __init__(self, share: float, notices: Notices | None, telemetry: Telemetry) -> None:
        """`share`: of the device's time, at most. Without `notices` nothing is looked at."""
        self._notices = notices
        self._telemetry = telemetry
        self._budgets = {False: Budget(share), True: Budget(share * _BUSY_SHARE)}
        # The mutable state, by the numbers of what was loaded: what it is, and what is looked at, by turns.
        self._keys: dict[int, ModelKey] = {}
        self._observers: dict[int, Observer] = {}
        if notices:
            notices.clear()

    @property
    def is_on(self) -> bool:
        """Whether anything is looked at."""
        return self._notices is not None

    def begin(self, number: int, key: ModelKey, watching: Watching | None) -> None:
        """Look at the rows of a version that was loaded under this number; None: not at this one's."""
        if self._notices is None:
            return
        self._keys[number] = key
        try:
            if watching is None:
                self._notices.put_up(unseen(*key, "off"))
                return
            self._observers[number] = Observer(key, watching, self._budgets[False].share)
            self._notices.put_up(watching.drift.report)
        except Exception:
            log.exception("%s/%s: live rows are not looked at", *key)
            self._observers.pop(number, None)
            self._telemetry.drift_failed(*key)

    def end(self, number: int) -> None:
        """Forget what was loaded under this number and all that was kept for it.

        What is said of the version goes with it, unless it was loaded anew.
        """
        self._observers.pop(number, None)
        key = self._keys.pop(number, None)
        if self._notices and key is not None and key not in self._keys.values():
            with contextlib.suppress(OSError):
                self._notices.take_down(*key)

    def recent(self, number: int) -> Snapshot | None:
        """The last rows that counted; None where nothing looks at those of this number."""
        observer = self._observers.get(number)
        return observer.recent.snapshot() if observer else None

    def accept(self, number: int, baseline: Baseline) -> None:
        """Compare rows with this baseline from now on, where they are still looked at."""
        observer = self._observers.get(number)
        if observer is None or self._notices is None:
            return
        try:
            observer.accept(baseline)
            self._notices.put_up(observer.drift.report)
        except Exception:
            log.exception(_BROKE, *observer.key)
            self._broke(number, observer)

    def see(
        self, number: int, rows: np.ndarray, answers: np.ndarray, batch: Sequence[Part[LinkedJob]]
    ) -> None:
        """Take a sample of a batch that is about to be answered; rows and answers `[N, ...]`."""
        observer = self._observers.get(number)
        if observer is None:
            return
        try:
            observer.draw.see(rows, answers, batch)
        except Exception:
            log.exception(_BROKE, *observer.key)
            self._broke(number, observer)

    def work(self, *, busy: bool) -> bool:
        """Do a piece of work, if there is one and time for it; whether there may be more to do now.

        `busy`: rows wait, and only what must be done is done.
        """
        budget = self._budgets[busy]
        if not self._observers or not budget.has_some(time.monotonic()):
            return False
        number = next((number for number, each in self._observers.items() if each.has_work), None)
        if number is None:
            return False
        observer = self._observers[number]
        started = time.monotonic()
        try:
            report = observer.work(started + _PIECE_S)
            if report is not None and self._notices:
                self._notices.put_up(report.report, report.last)
        except Exception:
            log.exception(_BROKE, *observer.key)
            self._broke(number, observer)
        spent = time.monotonic() - started
        for each in self._budgets.values():
            each.spend(spent)
        self._telemetry.drift_seconds(*observer.key, spent)
        # The next piece is another version's, if it has one.
        if number in self._observers:
            self._observers[number] = self._observers.pop(number)
        return True

    def _broke(self, number: int, observer: Observer) -> None:
        observer.failures += 1
        observer.give_up_rows()
        self._telemetry.drift_failed(*observer.key)
        if observer.failures >= _FAILURES and self._notices:
            self._observers.pop(number, None)
            observer.drift.fail()
            with contextlib.suppress(OSError):  # which may be what failed
                self._notices.put_up(observer.drift.report)
