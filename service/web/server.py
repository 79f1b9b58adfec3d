"""The HTTP server of a process: uvicorn's, with a drain that loses no request."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from service.web.connection import LINGER_S, Connection, State
from service.web.listening import has_waiting, refuse_newcomers

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from starlette.types import ASGIApp

    from service.settings import Settings
    from service.web.refusal import Refusal

BACKLOG = 2048


class Server(uvicorn.Server):
    """Serves `app` over connections with limits in time; `should_exit` begins the drain.

    The drain: answers say from now on that they are the last of their connection; no new handshake
    begins; what the kernel has accepted is accepted and answered; then the listening sockets are
    closed, and idle connections have lingered for as long.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, witness: Callable[[Refusal], None] = lambda _: None
    ) -> None:
        """`witness` is told what connections refuse themselves."""
        super().__init__(
            uvicorn.Config(
                cast("Any", app),
                http=cast("Any", partial(Connection, settings, witness=witness)),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=settings.drain_timeout_s,
                backlog=BACKLOG,
            )
        )
        self.server_state: State = State()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as the class says; `force_exit` ends it at once."""
        self.server_state.is_draining = True
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._accept_the_last(sockets or [])
        await super().shutdown(sockets)

    async def _accept_the_last(self, sockets: list[socket.socket]) -> None:
        for listening in sockets:
            refuse_newcomers(listening)
        await asyncio.sleep(LINGER_S)  # for handshakes that have begun
        for _ in range(BACKLOG):  # as many as may wait; a turn of the loop accepts at least one
            if self.force_exit or not any(map(has_waiting, sockets)):
                return
            await asyncio.sleep(0)
