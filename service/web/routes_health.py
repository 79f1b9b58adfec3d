"""Health and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service import telemetry
from service.errors import Draining, NotReady
from service.web.context import Context

router = APIRouter(tags=["health"])


@router.get("/livez", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def livez() -> Response:
    """200 as long as the process can answer at all."""
    return Response("live\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def readyz(context: Context) -> Response:
    """200 when every model is folded, proven and warm; else 503."""
    state = context.client.state
    if state == "draining":
        raise Draining("the service is shutting down", retry_after_s=5)
    if state != "ready":
        raise NotReady(f"the engine is {state}", retry_after_s=1)
    return Response("ready\n", media_type="text/plain")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: Context) -> Response:
    """Prometheus metrics."""
    client = context.client
    text = context.telemetry.scrape(
        ready=client.state == "ready", waiting_rows=client.board.load().waiting_rows
    )
    return Response(text, media_type=telemetry.CONTENT_TYPE)
