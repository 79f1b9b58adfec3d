"""Drift: what is said of live rows, of one norm's channels in the last window, and of one sample."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service.errors import NotWatched
from service.inspection.drift_report import DriftReport, unseen
from service.inspection.last_window import VECTORS
from service.inspection.sample import sample_drift
from service.web import bodies
from service.web.context import Context, parts_of
from service.web.examination import deadline_of, examined, moments, refuse_unwatched
from service.web.predictions import dump_json, refuse_non_finite
from service.web.queries import documented, parsed
from service.web.raw_route import MODEL, VERSION, RawRoute
from service.web.routes_models import Version, refuse_parameters_but
from service.web.schemas import Problem, RowsQuery
from service.web.schemas_drift import LayerWindow, SampleDrift

if TYPE_CHECKING:
    from service.engine.card import ModelCard
    from service.web.context import Parts


def _refuse_unknown_parameters(request: Request) -> None:
    refuse_parameters_but(request, {"version"})


router = APIRouter(
    prefix="/v1/models",
    tags=["drift"],
    dependencies=[Depends(_refuse_unknown_parameters)],
    responses={status: {"model": Problem} for status in (400, 404, 503)},
)
samples = APIRouter(prefix="/v1/models", tags=["drift"], route_class=RawRoute)

_QUICK_NUMBERS = 4096
_SAMPLE: dict[int | str, dict[str, Any]] = {
    200: {"model": SampleDrift},
    **{status: {"model": Problem} for status in (400, 404, 408, 409, 413, 415, 429, 503, 504)},
}


@router.get("/{model}/drift", response_model=DriftReport)
async def show_drift(context: Context, model: str, version: Version = None) -> Response:
    """Live rows against what the network was trained on, or against its baseline."""
    report = report_of(context, context.client.editions.card(model, version))
    return Response(report.model_dump_json(by_alias=True), media_type="application/json")


@router.get("/{model}/drift/{layer:path}", response_model=LayerWindow, responses={409: {"model": Problem}})
async def show_layer(context: Context, model: str, layer: str, version: Version = None) -> Response:
    """One watched norm in the window that was judged last, channel by channel; empty before the first."""
    card = context.client.editions.card(model, version)
    eps = card.layer(layer).eps
    refuse_unwatched(context, card)
    part = next((one.part for one in card.facts.watched if one.name == layer), None)
    if part is None:
        raise NotWatched(f"the input of norm {layer!r} is not looked at")
    report = report_of(context, card)
    window = context.notices.read_layer(*card.key, layer) if context.notices else None
    content = {
        "model": card.facts.model,
        "version": card.facts.version,
        "name": layer,
        "part": part,
        "state": report.state,
        "reference": report.reference,
        "judged_at": window.judged_at if window else None,
        "n": window.n if window else 0,
        "n_eff": window.n_eff if window else 0.0,
        "eps": eps,
        **(window.vectors if window else dict.fromkeys(VECTORS, ())),
    }
    return Response(dump_json(content), media_type="application/json")


@samples.post(
    "/{model}/drift",
    responses=_SAMPLE,
    openapi_extra=documented(RowsQuery, bodies.DOCUMENTED, MODEL),
)
async def examine(request: Request) -> Response:
    """How far one row lies from the reference at every watched norm of the highest version that is served.

    The body is one row as predict takes it. It is in no window, and nothing of it is stored.
    """
    return await _examined(request, request.path_params["model"])


@samples.post(
    "/{model}/versions/{version}/drift",
    responses=_SAMPLE,
    openapi_extra=documented(RowsQuery, bodies.DOCUMENTED, MODEL, VERSION),
)
async def examine_version(request: Request) -> Response:
    """The same of one version."""
    return await _examined(request, request.path_params["model"], request.path_params["version"])


async def _examined(request: Request, model: str, version: str | None = None) -> Response:
    parts = parts_of(request)
    return await examined(parts, model, version, partial(_sample, request, parts))


async def _sample(request: Request, parts: Parts, card: ModelCard, started: float) -> Response:
    query = parsed(request.scope["query_string"], RowsQuery)
    deadline = deadline_of(parts, query, started)
    parts.client.refuse_when_full(card, deadline)
    row = await bodies.read_rows(request, parts, card.facts.manifest.input, query, max_rows=1)
    seen = await moments(request, parts, card, row, deadline)
    refuse_non_finite(seen)
    # The first time of a wide network, and any time of one of 100,000 channels, takes tens of milliseconds.
    found = await bodies.beside_the_loop(
        lambda: sample_drift(seen[0], card.watched, card.baseline),
        parts.decoders,
        is_quick=seen.size <= _QUICK_NUMBERS,
    )
    content = {"model": card.facts.model, "version": card.facts.version, **found}
    return Response(dump_json(content), media_type="application/json")


def report_of(context: Parts, card: ModelCard) -> DriftReport:
    """What is said of the live rows of a version."""
    report = context.notices.read(*card.key) if context.notices else None
    # The engine tells of each version that it loads, unless it looks at none.
    return report or unseen(*card.key, "off" if context.settings.drift == "off" else "warming")
