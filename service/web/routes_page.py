"""The page and the documentation of the API: static files, nothing from another host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from starlette.types import Scope

_NOTHING_ELSE = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; "
)
# Trusted types: a browser that knows them refuses to turn any text into HTML.
_POLICY = (
    _NOTHING_ELSE + "style-src 'self'; img-src 'self' blob:; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
# swagger-ui writes style attributes and reads HTML that it has cleaned.
_DOCS_POLICY = _NOTHING_ELSE + "style-src 'self' 'unsafe-inline'; img-src 'self' data:"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # kept, and asked after by ETag each time
}


class _Page(StaticFiles):
    """The files of the page, each with the headers that keep a browser from doing anything else."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        policy = _DOCS_POLICY if path == "docs.html" else _POLICY
        response.headers.update({**_HEADERS, "Content-Security-Policy": policy})
        return response


_files = _Page(directory=Path(__file__).parent / "page")

router = APIRouter(include_in_schema=False)
router.mount("/page", _files, name="page")


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return await _files.get_response("index.html", request.scope)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The API's documentation, rendered from `/openapi.json`."""
    return await _files.get_response("docs.html", request.scope)
