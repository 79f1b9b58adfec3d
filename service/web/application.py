"""The web application: its routes, its limits and its answers to errors, over the parts they work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from service import __version__
from service.web import (
    description,
    problems,
    routes_baseline,
    routes_doctor,
    routes_drift,
    routes_health,
    routes_infer,
    routes_layers,
    routes_logging,
    routes_models,
    routes_page,
    routes_predict,
    routes_repository,
    routes_v2,
)
from service.web.access import Access
from service.web.body_limit import BodyLimit
from service.web.gate import Gate
from service.web.head_method import HeadMethod
from service.web.hosts import Hosts
from service.web.shortcut import Shortcut

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from service.keyring import Keyring
    from service.telemetry import AccessLog
    from service.web.context import Parts


def compose(parts: Parts, keyring: Keyring, access_log: AccessLog | None = None) -> ASGIApp:
    """The web application over its parts, with its limits around it."""
    app = FastAPI(
        title="foldserve",
        version=__version__,
        description="Convolutional networks, served with every BatchNorm folded, proven and shown.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name whatever host the client named
    )
    app.state.parts = parts
    app.include_router(routes_predict.router)
    app.include_router(routes_models.router)
    app.include_router(routes_layers.router)
    app.include_router(routes_drift.router)
    app.include_router(routes_drift.samples)
    app.include_router(routes_baseline.router)
    app.include_router(routes_doctor.router)
    app.include_router(routes_infer.router)
    app.include_router(routes_v2.router)
    app.include_router(routes_repository.router)
    app.include_router(routes_logging.router)
    app.include_router(routes_health.router)
    app.include_router(routes_page.router)
    problems.install(app)
    description.install(app)
    settings = parts.settings
    limited = BodyLimit(HeadMethod(Shortcut(app)), settings.max_body_bytes, settings.max_held_bytes)
    return Access(Gate(limited, Hosts(settings), keyring, parts.telemetry), access_log)
