"""The lag of an event loop: how much later than asked it wakes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.telemetry.metrics import Telemetry

_PERIOD_S = 0.1


async def watch_lag(telemetry: Telemetry) -> None:
    """Record the lag of the running loop ten times a second, until cancelled.

    uvloop's timers have a resolution of a millisecond: a lag below that says nothing.
    """
    while True:
        # Not the loop's own clock, which stands still between two turns.
        due = time.monotonic() + _PERIOD_S
        await asyncio.sleep(_PERIOD_S)
        # A loop may wake a little early: its timer runs from the start of the turn.
        telemetry.lag(max(time.monotonic() - due, 0.0))
