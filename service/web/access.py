"""Access: every request has an identity from here on, and an entry in the access log where there is one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from service.telemetry import Entry
from service.telemetry.identity import current, identify

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from service.telemetry import AccessLog
    from service.telemetry.identity import Identity

IDENTITY = "identity"
"""Where in the state of a request its connection leaves who it is."""

_ENTRY = "entry"


class Access:
    """Around `app`; without a `log` nothing is noted."""

    def __init__(self, app: ASGIApp, log: AccessLog | None) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        identity = state.get(IDENTITY) or identify(scope["headers"])
        current.set(identity)
        if self._log is None:
            await self._app(scope, receive, send)
        else:
            await self._noted(self._log, identity, scope, receive, send)

    async def _noted(
        self, log: AccessLog, identity: Identity, scope: Scope, receive: Receive, send: Send
    ) -> None:
        entry = scope["state"][_ENTRY] = _entry(identity, scope)
        began = time.monotonic()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
            else:
                entry.body_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            entry.duration_s, entry.ended = time.monotonic() - began, time.time()
            entry.route = entry.route or _route(scope)
            log.put(entry)


def entry_of(scope: Scope) -> Entry | None:
    """Where to note what is learnt of a request; None where nothing is noted."""
    found: Entry | None = scope.get("state", {}).get(_ENTRY)
    return found


def _entry(identity: Identity, scope: Scope) -> Entry:
    path = scope.get("raw_path") or scope["path"].encode("utf-8", "backslashreplace")
    client = scope.get("client")
    return Entry(identity, scope["method"], path.decode("latin-1"), client[0] if client else "")


def _route(scope: Scope) -> str:
    """The address as the documentation has it, which is the same for every model; empty where none fits."""
    route: Any = scope.get("route")
    return str(getattr(route, "path_format", ""))
