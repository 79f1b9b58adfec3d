"""The norms of what is served: a summary of all of them, and one with all that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.errors import InvalidQuery
from service.inspection import spreadsheet
from service.inspection.detail import detail
from service.inspection.layer_stats import with_derived
from service.web.context import Context
from service.web.representation import DOCUMENTED, represented
from service.web.routes_models import Version, refuse_unknown_parameters
from service.web.schemas import LayerDetail, Layers, Problem

if TYPE_CHECKING:
    from service.engine.card import ModelCard

router = APIRouter(
    prefix="/v1/models",
    tags=["models"],
    dependencies=[Depends(refuse_unknown_parameters)],
    responses={**DOCUMENTED, **{status: {"model": Problem} for status in (400, 404, 503)}},
)

Channel = Annotated[
    int | None,
    Query(
        ge=0, lt=10**9, description="The channel of the equation; in CSV the only one. 0 where none is given."
    ),
]


@router.get("/{model}/layers", response_model=Layers)
async def list_layers(context: Context, request: Request, model: str, version: Version = None) -> Response:
    """Every norm with summaries of its vectors, in the order in which the network computes them.

    JSON, or CSV with one line per norm by `Accept: text/csv`.
    """
    card = context.client.editions.card(model, version)
    layers = card.facts.layers
    return represented(request, lambda: _all(card), lambda: spreadsheet.of_layers(layers))


@router.get("/{model}/layers/{layer:path}", response_model=LayerDetail)
async def show_layer(
    context: Context,
    request: Request,
    model: str,
    layer: str,
    version: Version = None,
    channel: Channel = None,
) -> Response:
    """One norm with its whole vectors, their histograms, and the equation of one channel.

    JSON, or CSV with one line per channel by `Accept: text/csv`.
    """
    card = context.client.editions.card(model, version)
    stats = card.layer(layer)
    if channel is not None and channel >= stats.num_features:
        raise InvalidQuery(f"norm {layer!r} has the channels 0 to {stats.num_features - 1}, and no {channel}")
    stored = card.vectors.get(layer, {})
    listed = None if channel is None else [channel]
    return represented(
        request,
        lambda: {**_model(card), **detail(stats, stored, channel or 0)},
        lambda: spreadsheet.of_channels(with_derived(stored, stats.eps), listed),
    )


def _all(card: ModelCard) -> dict[str, Any]:
    return {**_model(card), "layers": [layer.model_dump() for layer in card.facts.layers]}


def _model(card: ModelCard) -> dict[str, Any]:
    return {"model": card.facts.model, "version": card.facts.version}
