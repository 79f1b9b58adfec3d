"""Surplus: connections beyond the limit, which are told so, and let go at once."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from service.errors import TooManyConnections
from service.web.access import IDENTITY
from service.web.gate import PROBES
from service.web.problems import kind, problem
from service.web.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from service.settings import Settings

PATIENCE_S = 1.0
"""How long such a connection may take for its headers: it is one more descriptor in any case."""

_OWN_DESCRIPTORS = 128


def most_connections(settings: Settings) -> int:
    """How many this process may hold: what is set, or fewer where it may not open so many files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(settings.max_connections, max(1, files - _OWN_DESCRIPTORS))


def turning_away(app: ASGIApp, witness: Callable[[Refusal], None]) -> ASGIApp:
    """`app` for a connection too many: probes are answered, all else is refused with 503."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            await app(scope, receive, send)
            return
        error = TooManyConnections("there are as many connections as there may be", retry_after_s=1)
        answer = problem(error, scope["path"])
        answer.headers["Connection"] = "close"  # a body that follows is not read
        witness(_refusal(scope, error, len(answer.body)))
        await answer(scope, receive, send)

    return answering


def _refusal(scope: Scope, error: TooManyConnections, body_bytes: int) -> Refusal:
    status, reason = kind(error)
    client = scope["client"]
    return Refusal(
        identity=scope["state"][IDENTITY],
        reason=reason,
        status=status.value,
        path=scope["raw_path"].decode("latin-1"),
        client=client[0] if client else "",
        method=scope["method"],
        body_bytes=body_bytes,
    )
