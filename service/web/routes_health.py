"""Health and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.engine.client import EngineClient
from service.errors import Draining, NotReady
from service.telemetry import CONTENT_TYPE, Gauges
from service.web.context import Context
from service.web.drift_gauges import DriftGauges

router = APIRouter(tags=["health"])


def refuse_unready(client: EngineClient) -> None:
    """Raise `Draining` or `NotReady` unless requests are answered."""
    state = client.state
    if state == "draining":
        raise Draining("the service is shutting down", retry_after_s=5)
    if state != "ready":
        raise NotReady(f"the engine is {state}", retry_after_s=1)


@router.get("/livez", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def livez() -> Response:
    """200 as long as the process can answer at all."""
    return Response("live\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def readyz(context: Context) -> Response:
    """200 when every model is folded, proven and warm; else 503."""
    refuse_unready(context.client)
    return Response("ready\n", media_type="text/plain")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: Context) -> Response:
    """Prometheus metrics, of all processes."""
    client, board = context.client, context.client.board
    gauges = Gauges(
        ready=client.state == "ready",
        waiting_rows=board.load().waiting_rows,
        slots_in_use=sum(worker.slots_taken for worker in board.workers),
        slots=sum(worker.slots for worker in board.workers),
        workers=sum(worker.alive_at > 0 for worker in board.workers),
    )
    reports = context.notices.of(card.key for card in client.editions.cards()) if context.notices else []
    content = context.telemetry.scrape(gauges, board.pids(), DriftGauges(reports))
    return Response(content, media_type=CONTENT_TYPE)
