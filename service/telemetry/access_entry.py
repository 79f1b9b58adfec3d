"""The access entry: what the log is told of one request, and the line that this becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from service.telemetry.identity import NOBODY
from service.telemetry.logs import moment, printable, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.telemetry.identity import Identity
    from service.telemetry.logs import Style

_LONGEST = 512
"""Characters of a path."""
_UNKNOWN = ("", None)


class Entry:
    """One request's; whoever learns something of it on the way writes that down here."""

    __slots__ = (
        *("body_bytes", "client", "duration_s", "ended", "identity", "key", "method", "model"),
        *("outcome", "path", "route", "rows", "stages", "status", "version"),
    )

    def __init__(
        self, identity: Identity = NOBODY, method: str = "", path: str = "", client: str = ""
    ) -> None:
        """`path` is as it came, without its query; `client` is an address."""
        self.identity = identity
        self.method = method
        self.path = path
        self.client = client
        # The mutable state: what is known later.
        self.route = ""
        self.status = 0
        self.body_bytes = 0
        self.ended = 0.0  # in seconds since the epoch
        self.duration_s = 0.0
        self.key = ""
        self.model = ""
        self.version = 0
        self.rows = 0
        self.outcome = ""  # of a request to predict: ok, or the problem's type
        # Milliseconds by field, of each stage that the request came to; read when the line is written.
        self.stages: Callable[[], Mapping[str, float]] = dict

    def line(self, style: Style) -> bytes:
        """What is logged, with the end of its line."""
        return self._json() if style == "json" else self._text()

    def _json(self) -> bytes:
        line = {"time": timestamp(self.ended), "level": "info", "logger": "foldserve.access"}
        line.update(self._fields())
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def _text(self) -> bytes:
        said = [f"{name}={value}" for name, value in self._fields().items() if value not in _UNKNOWN]
        return f"{moment(self.ended)} ACCESS  {' '.join(said)}\n".encode()

    def _fields(self) -> dict[str, Any]:
        """By the names that are documented; all are always there but those of what was computed."""
        fields: dict[str, Any] = {
            "method": self.method,
            "route": self.route,
            "path": self.path if len(self.path) <= _LONGEST else f"{self.path[:_LONGEST]}...",
            "status": self.status or None,
            "bytes": self.body_bytes,
            "duration_ms": round(self.duration_s * 1000, 3),
            "request_id": self.identity.request,
            "trace_id": self.identity.trace,
            "client": self.client,
            "key": self.key,
        }
        if not self.path.isprintable():
            fields["path"] = printable(fields["path"])
        if self.model:
            fields["model"], fields["version"] = self.model, self.version
            fields["rows"], fields["outcome"] = self.rows, self.outcome
            fields.update(self.stages())
        return fields
