"""The shortcut: predict and infer go past the framework, which would take as long as all else together."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request

from service.errors import FoldserveError
from service.web.access import entry_of
from service.web.problems import problem
from service.web.routes_infer import infer_with
from service.web.routes_predict import predict_with

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

_Route = Callable[[Request, str, str | None], Awaitable["Response"]]
_ROUTES: dict[tuple[str, str], _Route] = {("v1", "predict"): predict_with, ("v2", "infer"): infer_with}

log = logging.getLogger("foldserve")


class Shortcut:
    """In front of `app`, whose own routes to predict are the same, and are what its documentation shows."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = _named(scope)
        if named is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        entry = entry_of(scope)
        if entry:
            entry.route = _documented(scope["path"])
        response = await _answered(Request(scope, receive, send), *named)
        await response(scope, receive, send)


def _named(scope: Scope) -> tuple[_Route, str, str | None] | None:
    """The route, the model and the version of a request to predict or to infer; None for any other."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    match scope["path"].split("/"):
        case ["", api, "models", model, verb] if model and (api, verb) in _ROUTES:
            return _ROUTES[api, verb], model, None
        case ["", api, "models", model, "versions", version, verb] if (
            model and version and (api, verb) in _ROUTES
        ):
            return _ROUTES[api, verb], model, version
    return None


def _documented(path: str) -> str:
    """An address as the documentation has it."""
    _, api, *_, verb = path.split("/")
    between = "versions/{version}/" if path.count("/") > 4 else ""
    return f"/{api}/models/{{model}}/{between}{verb}"


async def _answered(request: Request, route: _Route, model: str, version: str | None) -> Response:
    try:
        return await route(request, model, version)
    except FoldserveError as error:
        return problem(error, request.scope["path"])
    except Exception:
        log.exception("a request to predict failed")
        return problem(FoldserveError(), request.scope["path"])
