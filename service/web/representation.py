"""Representations: one thing as JSON or CSV, whichever is asked for, and not at all to who has it already."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from service.web.predictions import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

JSON, CSV = "application/json", "text/csv"

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {CSV: {"schema": {"type": "string"}}},
        "headers": {"ETag": {"schema": {"type": "string"}, "description": "Of these very bytes."}},
    },
    304: {"description": "`If-None-Match` names the `ETag` of what would be answered."},
}
"""For the routes that answer so."""


def represented(
    request: Request, content: Callable[[], dict[str, Any]], table: Callable[[], str]
) -> Response:
    """The content as JSON, or the table as CSV where `Accept` prefers that, each with an `ETag` of its own.

    304 without a body where the client has it already. Nothing may be answered from a cache unasked: the
    model behind an address changes with a restart.
    """
    media_type = preferred(request.headers.get("accept", ""), CSV)
    body = table().encode() if media_type == CSV else dump_json(content())
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "no-cache"}
    if _names(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def preferred(accept: str, other: str) -> str:
    """`other` where an `Accept` header wants it more than JSON; a range counts less than a name."""
    wanted = [_range(part) for part in accept.split(",")]
    scores = {
        media_type: max((score for name, score in wanted if name in names), default=(0.0, 0))
        for media_type, names in (
            (JSON, (JSON, "application/*", "*/*")),
            (other, (other, f"{other.partition('/')[0]}/*")),
        )
    }
    return other if scores[other] > scores[JSON] else JSON


def _range(part: str) -> tuple[str, tuple[float, int]]:
    """A media range with its weight, and whether it names one type."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [piece.partition("=")[2] for piece in parameters if piece.startswith("q=")]
    try:
        weight = float(weights[0]) if weights else 1.0
    except ValueError:
        weight = 0.0
    return name, (weight, int(weight > 0 and "*" not in name))


def _names(condition: str, tag: str) -> bool:
    """Whether an `If-None-Match` header names the tag; weak tags are compared as if they were strong."""
    tags = [listed.strip().removeprefix("W/") for listed in condition.split(",")]
    return tag in tags or tags == ["*"]
