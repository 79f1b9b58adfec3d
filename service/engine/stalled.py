"""The stalled loads: what was waited for too long, on threads that nobody can end."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from service.engine import allocator
from service.engine.child import REFUSED
from service.errors import LoadStalled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.engine.selection import Picked
    from service.store.model_store import StoredModel

AT_MOST = 4
"""Threads that may be stuck at a time: each holds what it has loaded so far, and may compute."""

log = logging.getLogger("foldserve.engine")


class _Load(NamedTuple):
    thread: threading.Thread
    picked: Picked | None
    """What it loads, in which state of its files; None before it has come to that."""


class Stalled:
    """The loads that were given up, as long as their threads run; what they come to is for nobody."""

    def __init__(self) -> None:
        # The mutable state; written by one thread, read by another, and never changed in place.
        self._loads: tuple[_Load, ...] = ()

    def __len__(self) -> int:
        return len(self._running())

    def give_up(self, thread: threading.Thread, picked: Picked | None, after_s: float) -> LoadStalled:
        """Wait for this thread no longer; what is said of it."""
        self._loads = (*self._running(), _Load(thread, picked))
        allocator.keep()  # as a load that comes to its end does
        what = f"{picked.stored}: it" if picked else "it"
        return LoadStalled(f"{what} has taken longer than {after_s:g} s and is waited for no more")

    def require_none(self, picked: Picked) -> None:
        """Raise `LoadStalled` where this very load would only be one more that is stuck."""
        running = self._running()
        if any(load.picked and _is_same(load.picked, picked) for load in running):
            raise LoadStalled(f"{picked.stored}: a load of it that was given up has not ended")
        if len(running) >= AT_MOST:
            raise LoadStalled(
                f"{picked.stored}: {AT_MOST} loads that were given up have not ended; "
                "when one does, or after a restart, more are begun"
            )

    def _running(self) -> tuple[_Load, ...]:
        return tuple(load for load in self._loads if load.thread.is_alive())

    def __repr__(self) -> str:
        return f"<Stalled {' '.join(str(load.picked and load.picked.stored) for load in self._running())}>"


def _is_same(one: Picked, other: Picked) -> bool:
    return (str(one.stored), one.fingerprint) == (str(other.stored), other.fingerprint)


@contextmanager
def or_end(stored: StoredModel, seconds: float) -> Iterator[None]:
    """End this process where the block takes longer; 0: never. For the start, when nobody is served yet."""
    timer = threading.Timer(seconds, _end, [stored, seconds])
    timer.daemon = True
    if seconds:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(stored: StoredModel, seconds: float) -> None:
    log.error("%s: loading it has taken longer than %g s", stored, seconds)
    os._exit(REFUSED)
