"""The refusal: what a connection answered itself, because no request came that the application could see."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.telemetry import Entry
from service.web.problems import kind, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.errors import InvalidInput
    from service.telemetry import AccessLog, Telemetry
    from service.telemetry.identity import Identity

log = logging.getLogger("foldserve")


class Refusal(NamedTuple):
    """One of them, with what is known of the request."""

    identity: Identity
    reason: str
    """The problem's type."""
    status: int
    path: str = ""
    client: str = ""
    method: str = ""
    body_bytes: int = 0

    def entry(self) -> Entry:
        """For the access log."""
        entry = Entry(self.identity, self.method, self.path, self.client)
        entry.status, entry.body_bytes, entry.ended = self.status, self.body_bytes, time.time()
        return entry


def refused(
    error: InvalidInput, identity: Identity, path: str, client: str, headers: Sequence[tuple[bytes, bytes]]
) -> tuple[Refusal, bytes]:
    """The refusal, and an answer with these `headers` which says that it is the last of its connection."""
    answer = problem(error, unquote(path))
    answer.headers["Connection"] = "close"
    status, reason = kind(error)
    refusal = Refusal(identity, reason, status.value, path, client, body_bytes=len(answer.body))
    lines = (b"%s: %s\r\n" % header for header in (*headers, *answer.raw_headers, identity.header))
    return refusal, b"".join((STATUS_LINE[answer.status_code], *lines, b"\r\n", answer.body))


class Refusals:
    """Counts and logs refusals; they are a debugging matter, or strangers could fill the log."""

    def __init__(self, telemetry: Telemetry, access_log: AccessLog | None = None) -> None:
        self._telemetry = telemetry
        self._access_log = access_log

    def __call__(self, refusal: Refusal) -> None:
        """Count one."""
        self._telemetry.refused(refusal.reason)
        log.debug("a connection was refused: %s, request %s", refusal.reason, refusal.identity.request)
        if self._access_log:
            self._access_log.put(refusal.entry())
