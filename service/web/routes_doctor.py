"""The doctor: whether images reach the network as they did in training, or what would fit better."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from service.diagnosis.diagnosis import diagnose
from service.diagnosis.images import variant_rows
from service.errors import InvalidInput
from service.inputs.arrays import rows_from_array
from service.web import bodies
from service.web.context import parts_of
from service.web.examination import deadline_of, examined, moments
from service.web.interest import Interest
from service.web.predictions import dump_json
from service.web.queries import documented, parsed
from service.web.raw_route import MODEL, VERSION, RawRoute
from service.web.schemas import Problem, RowsQuery
from service.web.schemas_drift import Diagnosis

if TYPE_CHECKING:
    from service.diagnosis.variant import Variant
    from service.engine.card import ModelCard
    from service.inputs.rows import Rows
    from service.web.context import Parts

router = APIRouter(prefix="/v1/models", tags=["drift"], route_class=RawRoute)

_MOST_IMAGES = 16
_ROWS_AT_ONCE = 4
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Diagnosis},
    **{status: {"model": Problem} for status in (400, 404, 408, 409, 413, 415, 429, 503, 504)},
}


@router.post(
    "/{model}/doctor",
    responses=_RESPONSES,
    openapi_extra=documented(RowsQuery, bodies.DOCUMENTED, MODEL),
)
async def diagnose_model(request: Request) -> Response:
    """Which preprocessing of 1 to 16 images the norms know from training, for the highest version served.

    The body is images as predict takes them. All take the way of every likely fault through the unfolded
    network, which takes as long as some fifteen times as many rows.
    """
    return await _examined(request, request.path_params["model"])


@router.post(
    "/{model}/versions/{version}/doctor",
    responses=_RESPONSES,
    openapi_extra=documented(RowsQuery, bodies.DOCUMENTED, MODEL, VERSION),
)
async def diagnose_version(request: Request) -> Response:
    """The same of one version."""
    return await _examined(request, request.path_params["model"], request.path_params["version"])


async def _examined(request: Request, model: str, version: str | None = None) -> Response:
    parts = parts_of(request)
    return await examined(parts, model, version, partial(_answered, request, parts))


async def _answered(request: Request, parts: Parts, card: ModelCard, started: float) -> Response:
    query, spec = parsed(request.scope["query_string"], RowsQuery), card.facts.manifest.input
    deadline = deadline_of(parts, query, started)
    parts.client.refuse_when_full(card, deadline)
    rows = await bodies.read_rows(request, parts, spec, query, _MOST_IMAGES)
    seen = await _seen(request, parts, card, rows, deadline)
    found = await _on_a_thread(parts, partial(diagnose, card.watched, seen, spec))
    content = {"model": card.facts.model, "version": card.facts.version, **found.as_dict()}
    return Response(dump_json(content), media_type="application/json")


async def _seen(
    request: Request, parts: Parts, card: ModelCard, rows: Rows, deadline: float
) -> list[tuple[Variant, np.ndarray, np.ndarray]]:
    """What the watched norms see of the images in each variant: means and variances, `[N, C]`."""
    interest, spec = Interest(request, deadline), card.facts.manifest.input
    images = await _images(parts, rows, interest)
    variants = variant_rows(spec, images, parts.settings.max_pixels, interest.check)
    found = []
    while (made := await _on_a_thread(parts, partial(next, variants, None))) is not None:
        variant, inputs = made
        both = await _moments(request, parts, card, inputs, deadline)
        found.append((variant, both[:, 0], both[:, 1]))
    return found


async def _images(parts: Parts, rows: Rows, interest: Interest) -> list[bytes]:
    """The images as they were sent; decoded once, so that a broken one is named before all are used."""
    images: list[bytes] | None = await _on_a_thread(parts, partial(rows.encoded))
    if images is None:
        raise InvalidInput("the doctor looks at images: nobody knows how numbers were preprocessed")
    await bodies.fill(rows, np.empty(rows.shape, rows.dtype), parts.doctor, interest.check)
    return images


async def _moments(
    request: Request, parts: Parts, card: ModelCard, inputs: np.ndarray, deadline: float
) -> np.ndarray:
    """Of network inputs, a few at a time, so that others find room."""
    pieces = [inputs[first : first + _ROWS_AT_ONCE] for first in range(0, len(inputs), _ROWS_AT_ONCE)]
    return np.concatenate(
        [await moments(request, parts, card, rows_from_array(piece), deadline) for piece in pieces]
    )


async def _on_a_thread(parts: Parts, work: partial[Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(parts.doctor, work)
