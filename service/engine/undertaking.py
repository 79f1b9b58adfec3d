"""The undertaking: a change that the engine was asked for, from then until its end."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.engine.change import Settled
from service.errors import EngineFailed

if TYPE_CHECKING:
    from service.engine.acceptance import Accepted
    from service.engine.change import Change
    from service.engine.loading import Loaded
    from service.engine.selection import Picked
    from service.inspection.recent_rows import Snapshot
    from service.store.model_store import Fingerprint

log = logging.getLogger("foldserve.engine")


@dataclass
class Undertaking:
    """What a change needs and what became of it; for one thread at a time.

    It belongs to the thread that prepares it until that says that it is done, else to the engine's.
    """

    ticket: int
    change: Change
    recent: dict[int, Snapshot | None] = field(default_factory=dict)
    """The live rows that may be accepted, by the number of what was loaded."""
    fresh: list[tuple[Loaded, Fingerprint]] = field(default_factory=list)
    """What was loaded for it."""
    kept: set[int] = field(default_factory=set)
    """The numbers of what is served already as the change would have it."""
    accepted: Accepted | None = None
    thread: threading.Thread = field(default_factory=threading.Thread)
    """That which prepares it."""
    picked: Picked | None = None
    """What is being loaded."""
    since: float = 0.0
    """When that was begun, on the monotonic clock."""
    is_ending: bool = False
    """Whether it is the engine's thread's again."""
    settled: Settled | None = None
    """How it ended; of one that is prepared, how it will unless something fails yet."""

    def fail(self) -> None:
        """End by the exception that is being handled, which is no error of ours: the log tells all of it."""
        log.exception("%s", self._not_made)
        what = "rows" if self.change.action == "accept" else "model"
        failed = EngineFailed(f"the {what} could not be {self.change.action}ed; the cause is in the log")
        self.settled = Settled.refused(self.change, failed)

    def log_end(self) -> None:
        """Say in one line how it ended."""
        action, model = self.change.action, self.change.model
        if self.settled and self.settled.refusal:
            level = logging.WARNING if action == "accept" else logging.ERROR
            if self.change.is_retry and self.settled.may_pass:
                level = logging.DEBUG  # it was said at the first try
            log.log(level, "%s: %s", self._not_made, self.settled.detail)
        elif self.accepted:
            log.info("model %r: %d live rows are its baseline now", model, self.accepted.baseline.rows)
        else:
            level = logging.INFO if self.fresh or action == "unload" else logging.DEBUG
            log.log(level, "model %r was %sed", model, action)

    @property
    def _not_made(self) -> str:
        what = "the live rows of" if self.change.action == "accept" else "model"
        return f"{what} {self.change.model!r} could not be {self.change.action}ed"
