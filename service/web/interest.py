"""Interest: whether anybody still waits for the answer to a request."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from service.errors import DeadlinePassed, JobCancelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

WATCHERS = "watchers"
"""Where in the state of a request whoever answers it leaves functions to call once the client is gone."""

GONE = "gone"
"""Where in the state of a request it then says so, for those who look later."""


class Interest:
    """In the answer to one request: it ends with the client, or at `deadline`.

    `deadline` is in seconds of the monotonic clock.
    """

    def __init__(self, request: Request, deadline: float) -> None:
        self._state = request.scope["state"]
        self._deadline = deadline

    def check(self) -> None:
        """Raise `JobCancelled` or `DeadlinePassed` where nobody waits any more; on any thread."""
        if self._state.get(GONE):
            raise JobCancelled("the client went away")
        if time.monotonic() >= self._deadline:
            raise DeadlinePassed("the deadline passed before the rows were decoded")

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Leave the block with `JobCancelled` once the client disconnects; raises it where it has already."""
        self.check()
        task, watchers = asyncio.current_task(), self._state.get(WATCHERS, set())

        def leave() -> None:
            if task:
                task.cancel()

        watchers.add(leave)
        try:
            yield
        except asyncio.CancelledError:
            if self._state.get(GONE):
                raise JobCancelled("the client went away") from None
            raise
        finally:
            watchers.discard(leave)


def end_interest(state: dict[str, Any]) -> None:
    """The client of the request with this state is gone: tell whoever is answering it."""
    state[GONE] = True
    for watcher in list(state[WATCHERS]):
        watcher()
