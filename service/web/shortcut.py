"""The shortcut: requests to predict go past the framework, which would take as long as all else together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.requests import Request

from service.errors import FoldserveError
from service.web.problems import problem
from service.web.routes_predict import predict_with

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

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
        response = await _answered(Request(scope, receive, send), *named)
        await response(scope, receive, send)


def _named(scope: Scope) -> tuple[str, str | None] | None:
    """The model and the version of a request to predict; None for any other."""
    if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith("/predict"):
        return None
    match scope["path"].split("/"):
        case ["", "v1", "models", model, "predict"] if model:
            return model, None
        case ["", "v1", "models", model, "versions", version, "predict"] if model and version:
            return model, version
    return None


async def _answered(request: Request, model: str, version: str | None) -> Response:
    try:
        return await predict_with(request, model, version)
    except FoldserveError as error:
        return problem(error)
    except Exception:
        log.exception("a request to predict failed")
        return problem(FoldserveError())
