"""Nobody works for a client that has gone, or for a deadline that has passed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from starlette.requests import Request

from service.errors import DeadlinePassed, JobCancelled
from service.web.interest import GONE, WATCHERS, Interest


def interest(state: dict[str, Any], timeout_s: float = 60.0) -> Interest:
    request = Request({"type": "http", "state": state})
    return Interest(request, time.monotonic() + timeout_s)


def test_interest_ends_with_the_deadline_or_with_the_client() -> None:
    interest({}).check()
    with pytest.raises(DeadlinePassed):
        interest({}, timeout_s=0).check()
    with pytest.raises(JobCancelled):
        interest({GONE: True}).check()


@pytest.mark.parametrize("timeout_s", [0, 60])
def test_what_nobody_waits_for_is_not_begun(timeout_s: float) -> None:
    """Its client may have gone while a thread parsed its body."""

    async def main() -> None:
        with interest({GONE: timeout_s > 0, WATCHERS: set()}, timeout_s).awaited():
            pytest.fail("it was begun")

    with pytest.raises((JobCancelled, DeadlinePassed)):
        asyncio.run(main())


def test_client_that_leaves_cancels_what_it_waited_for() -> None:
    state: dict[str, Any] = {WATCHERS: set()}

    async def main() -> None:
        def disconnect() -> None:
            state[GONE] = True
            for watcher in state[WATCHERS]:
                watcher()

        asyncio.get_running_loop().call_soon(disconnect)
        with interest(state).awaited():
            await asyncio.sleep(60)

    with pytest.raises(JobCancelled):
        asyncio.run(main())
    assert state[WATCHERS] == set()


def test_drain_that_cancels_is_not_taken_for_a_client_that_left() -> None:
    async def main() -> None:
        async def wait() -> None:
            with interest({WATCHERS: set()}).awaited():
                await asyncio.sleep(60)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
