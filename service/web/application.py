"""The web application: its routes, its limits and its answers to errors, over the parts they work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from service import __version__
from service.web import problems, routes_health, routes_models, routes_page, routes_predict
from service.web.body_limit import BodyLimit

if TYPE_CHECKING:
    from service.web.context import Parts


def compose(parts: Parts) -> FastAPI:
    """The web application over its parts."""
    app = FastAPI(
        title="foldserve",
        version=__version__,
        description="Convolutional networks, served with every BatchNorm folded, proven and shown.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = parts
    app.add_middleware(BodyLimit, max_bytes=parts.settings.max_body_bytes)
    app.include_router(routes_predict.router)
    app.include_router(routes_models.router)
    app.include_router(routes_health.router)
    app.include_router(routes_page.router)
    problems.install(app)
    return app
