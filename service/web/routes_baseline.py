"""The baseline of drift, from accepted traffic: what came in of late is as it should be from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service.engine.change import Change
from service.inspection.drift_report import DriftReport
from service.web.context import Context
from service.web.examination import refuse_unwatched
from service.web.inference import parsed_version
from service.web.routes_drift import report_of
from service.web.routes_models import refuse_parameters_but
from service.web.schemas import Problem

if TYPE_CHECKING:
    from service.web.context import Parts

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 404, 409, 429, 503)
}


def _refuse_parameters(request: Request) -> None:
    refuse_parameters_but(request, set())


router = APIRouter(
    prefix="/v1/models", tags=["drift"], dependencies=[Depends(_refuse_parameters)], responses=_PROBLEMS
)


@router.post("/{model}/baseline", response_model=DriftReport)
async def accept(context: Context, model: str) -> Response:
    """Make the live rows that were looked at last the baseline of the highest version that is served.

    It is stored, and used from this answer on. Takes an admin's key.
    """
    return await _accepted(context, model)


@router.post("/{model}/versions/{version}/baseline", response_model=DriftReport)
async def accept_version(context: Context, model: str, version: str) -> Response:
    """The same of one version."""
    return await _accepted(context, model, parsed_version(version))


async def _accepted(parts: Parts, model: str, version: int | None = None) -> Response:
    card = parts.client.editions.card(model, version)
    refuse_unwatched(parts, card)
    await parts.client.errands.do(Change(action="accept", model=model, version=card.facts.version))
    return Response(report_of(parts, card).model_dump_json(by_alias=True), media_type="application/json")
