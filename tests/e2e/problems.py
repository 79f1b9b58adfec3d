"""What every refusal of the service looks like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .server import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"
_INSIDES = re.compile(rf'Traceback|File "|\.py\b|site-packages|model_store|{re.escape(str(ROOT))}')


def assert_problem(
    status: int, headers: Mapping[str, str], body: Any, *, expected: tuple[int, str, str]
) -> None:
    """The body is a problem (RFC 9457) of this status and type, with a detail that matches."""
    wanted_status, slug, detail = expected
    assert (status, body["type"]) == (wanted_status, slug), body
    assert headers["content-type"] == MEDIA_TYPE
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == wanted_status
    assert body["title"]
    assert re.search(detail, body["detail"]), body["detail"]
    assert_no_insides(body)


def assert_no_insides(body: Any) -> None:
    """The answer says nothing of files and code."""
    assert not _INSIDES.search(str(body)), body
