"""Problems: how every error becomes an answer, decided in one table.

Native routes answer RFC 9457, those of the Open Inference Protocol `{"error": "..."}`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from service import errors

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
PROTOCOL = "/v2"
"""What the addresses of the Open Inference Protocol begin with."""

_LONGEST_NAME = 64
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# The most specific class of an error decides; the type is a stable slug that clients may rely on.
TABLE: dict[type[errors.FoldserveError], tuple[HTTPStatus, str]] = {
    errors.InvalidInput: (HTTPStatus.BAD_REQUEST, "invalid-input"),
    errors.InvalidQuery: (HTTPStatus.BAD_REQUEST, "invalid-query"),
    errors.InvalidImage: (HTTPStatus.BAD_REQUEST, "invalid-image"),
    errors.InvalidTensor: (HTTPStatus.BAD_REQUEST, "invalid-tensor"),
    errors.InputTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large"),
    errors.UnsupportedMediaType: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"),
    errors.RequestTimeout: (HTTPStatus.REQUEST_TIMEOUT, "request-timeout"),
    errors.HeadersTooLarge: (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large"),
    errors.InvalidHttp: (HTTPStatus.BAD_REQUEST, "invalid-http"),
    errors.LoadRefused: (HTTPStatus.BAD_REQUEST, "load-refused"),
    errors.Unauthorized: (HTTPStatus.UNAUTHORIZED, "unauthorized"),
    errors.Forbidden: (HTTPStatus.FORBIDDEN, "forbidden"),
    errors.UnknownModel: (HTTPStatus.NOT_FOUND, "unknown-model"),
    errors.UnknownVersion: (HTTPStatus.NOT_FOUND, "unknown-version"),
    errors.UnknownLayer: (HTTPStatus.NOT_FOUND, "unknown-layer"),
    errors.NotWatched: (HTTPStatus.CONFLICT, "not-watched"),
    errors.TooFewRows: (HTTPStatus.CONFLICT, "too-few-rows"),
    errors.NotStored: (HTTPStatus.CONFLICT, "not-stored"),
    errors.NotReady: (HTTPStatus.SERVICE_UNAVAILABLE, "not-ready"),
    errors.Draining: (HTTPStatus.SERVICE_UNAVAILABLE, "draining"),
    errors.QueueFull: (HTTPStatus.TOO_MANY_REQUESTS, "queue-full"),
    errors.TooManyConnections: (HTTPStatus.SERVICE_UNAVAILABLE, "too-many-connections"),
    errors.DeadlinePassed: (HTTPStatus.GATEWAY_TIMEOUT, "deadline-passed"),
    errors.LoadStalled: (HTTPStatus.SERVICE_UNAVAILABLE, "load-stalled"),
    errors.JobCancelled: (HTTPStatus.SERVICE_UNAVAILABLE, "cancelled"),
    errors.EngineFailed: (HTTPStatus.SERVICE_UNAVAILABLE, "engine-failed"),
    errors.FoldserveError: (HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error"),
}
_TITLES = {
    "not-found": "There is nothing at this address",
    "method-not-allowed": "This address does not take this method",
    "internal-error": "foldserve failed; this is a bug",
}


def kind(error: errors.FoldserveError) -> tuple[HTTPStatus, str]:
    """The status and the type slug of an error."""
    return next(TABLE[parent] for parent in type(error).__mro__ if parent in TABLE)


def problem(error: errors.FoldserveError, path: str = "") -> Response:
    """The answer to a request that ended in `error`, in the form that `path` has errors in."""
    status, slug = kind(error)
    retry_after = getattr(error, "retry_after_s", None)
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return _answer(path, status, slug, "the cause is in the service's log")
    return _answer(path, status, slug, str(error), headers)


def is_protocol(path: str) -> bool:
    """Whether an address is one of the Open Inference Protocol."""
    return path == PROTOCOL or path.startswith(f"{PROTOCOL}/")


def protocol_error(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as the Open Inference Protocol has it."""
    return Response(orjson.dumps({"error": detail}), status.value, headers, "application/json")


def install(app: FastAPI) -> None:
    """Let every error of `app` be answered as a problem, the framework's own included."""
    app.add_exception_handler(errors.FoldserveError, _on_foldserve_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


async def _on_foldserve_error(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, errors.FoldserveError) else errors.FoldserveError()
    return problem(known, request.scope["path"])


async def _on_validation_error(request: Request, error: Exception) -> Response:
    found: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    return problem(errors.InvalidQuery(sentence(found)), request.scope["path"])


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.BAD_REQUEST
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request)
    slug = status.phrase.lower().replace(" ", "-")
    return _answer(request.scope["path"], status, slug, _TITLES.get(slug, status.phrase), headers)


def _allowed(request: Request) -> str:
    """The methods of an address; the framework names those of the first route only."""
    asked = [{**request.scope, "method": method} for method in _METHODS]
    taken = [
        scope["method"]
        for scope in asked
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]
    if not taken or "GET" in taken:  # the page's files are below a route of their own, and are only read
        return ", ".join(["GET", "HEAD", *taken[1:]])
    return ", ".join(taken)


async def _on_bug(request: Request, __: Exception) -> Response:
    return problem(errors.FoldserveError(), request.scope["path"])


def sentence(found: list[Any]) -> str:
    """What pydantic found wrong, as one sentence."""

    def one(item: Any) -> str:
        name = shortened(".".join(str(part) for part in item["loc"] if part not in ("query", "path", "body")))
        if item["type"] == "extra_forbidden":
            return f"unknown parameter {name!r}"
        return f"{name}: {item['msg']}"

    return "; ".join(map(one, found))


def shortened(name: str) -> str:
    """A name that a client chose, so that an error that repeats it is no longer than one."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _answer(
    path: str, status: HTTPStatus, slug: str, detail: str, headers: dict[str, str] | None = None
) -> Response:
    if is_protocol(path):
        return protocol_error(status, detail, headers)
    body = {
        "type": slug,
        "title": _TITLES.get(slug, slug.replace("-", " ").capitalize()),
        "status": status.value,
        "detail": detail,
    }
    return Response(orjson.dumps(body), status.value, headers, MEDIA_TYPE)
