"""Predict: one request's way from its body to its answer.

The routes take the raw request and read their few parameters themselves, which halves what the
framework costs; `openapi_extra` documents what they read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.web import bodies
from service.web.access import entry_of
from service.web.context import parts_of
from service.web.inference import Times, counted, infer
from service.web.predictions import as_array, as_json, dump_array, dump_json, refuse_long
from service.web.queries import documented, parsed
from service.web.raw_route import MODEL, VERSION, RawRoute
from service.web.representation import preferred
from service.web.schemas import Predictions, PredictQuery, Problem

if TYPE_CHECKING:
    from service.batching.job import Answer
    from service.engine.card import ModelCard
    from service.web.context import Parts


router = APIRouter(tags=["predict"], route_class=RawRoute)

_NPY = "application/x-npy"
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Predictions, "content": {_NPY: _BINARY}},
    **{status: {"model": Problem} for status in (400, 404, 408, 413, 415, 429, 503, 504)},
}


@router.post(
    "/v1/models/{model}/predict",
    responses=_RESPONSES,
    openapi_extra=documented(PredictQuery, bodies.DOCUMENTED, MODEL),
)
async def predict(request: Request) -> Response:
    """Predict with the highest version that is served."""
    return await predict_with(request, request.path_params["model"])


@router.post(
    "/v1/models/{model}/versions/{version}/predict",
    responses=_RESPONSES,
    openapi_extra=documented(PredictQuery, bodies.DOCUMENTED, MODEL, VERSION),
)
async def predict_version(request: Request) -> Response:
    """Predict with one version."""
    return await predict_with(request, request.path_params["model"], request.path_params["version"])


async def predict_with(request: Request, model: str, version: str | None = None) -> Response:
    """The answer, counted by outcome; raises whatever error is to be answered."""
    parts = parts_of(request)
    answered, entry = partial(_answered, request, parts), entry_of(request.scope)
    return await counted(parts, model, version, answered, entry)


async def _answered(request: Request, parts: Parts, card: ModelCard, times: Times) -> Response:
    query, limit_ms = parsed(request.scope["query_string"], PredictQuery), parts.settings.timeout_ms
    deadline = times.started + min(query.timeout_ms or limit_ms, limit_ms) / 1000
    parts.client.refuse_when_full(card, deadline)
    rows = await bodies.read_rows(request, parts, card.facts.manifest.input, query)
    if not _wants_array(request):
        refuse_long(rows.count, card.facts.output_shape, card.facts.manifest.output, query)

    def written(answer: Answer) -> Response:
        return _written(request, card, answer, query, times)

    return await infer(request, parts, card, rows, deadline, times, written)


def _written(
    request: Request, card: ModelCard, answer: Answer, query: PredictQuery, times: Times
) -> Response:
    facts = card.facts
    if _wants_array(request):
        array = as_array(answer.rows, facts.manifest.output, query)
        return Response(dump_array(array), media_type=_NPY)
    content = {
        "model": facts.model,
        "version": facts.version,
        "predictions": as_json(answer.rows, facts.manifest.output, facts.labels, query),
        "timing_ms": times.milliseconds(),
    }
    return Response(dump_json(content), media_type="application/json")


def _wants_array(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return _NPY in accept.lower() and preferred(accept, _NPY) == _NPY  # most ask for nothing of the kind
