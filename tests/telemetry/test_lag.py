"""An event loop that somebody blocks is found out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from service.telemetry import Telemetry, watch_lag
from tests.telemetry.reading import value

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "foldserve_event_loop_lag_seconds"

pytestmark = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


async def after(samples: int, metrics: Telemetry) -> None:
    """Until there are so many samples more."""
    wanted = value(metrics, f"{NAME}_count") + samples
    while value(metrics, f"{NAME}_count") < wanted:  # noqa: ASYNC110 nothing tells of a sample
        await asyncio.sleep(0.01)


def watched(loop: Callable[[], Any], blocked_s: float) -> Telemetry:
    """What is recorded of a loop that is blocked once."""
    metrics = Telemetry()

    async def run() -> None:
        watching = asyncio.create_task(watch_lag(metrics))
        async with asyncio.timeout(60):
            await after(1, metrics)
            time.sleep(blocked_s)  # noqa: ASYNC251 to block is the point
            await after(2, metrics)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
    return metrics


def test_a_blocked_loop_shows_by_how_much_it_woke_too_late(loop: Any) -> None:
    metrics = watched(loop, blocked_s=0.6)
    # Blocked at most a period, a tenth of a second, before it should wake.
    late = value(metrics, f"{NAME}_count") - value(metrics, f"{NAME}_bucket", le="0.25")
    assert late >= 1
    assert value(metrics, f"{NAME}_sum") > 0.48


def test_a_loop_that_is_free_is_sampled_too_and_is_never_early(loop: Any) -> None:
    metrics = watched(loop, blocked_s=0)
    assert value(metrics, f"{NAME}_count") >= 3
    assert value(metrics, f"{NAME}_sum") >= 0
