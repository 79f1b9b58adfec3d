"""What is served: models and their fold reports, read from model cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.errors import InvalidQuery
from service.web.context import Context
from service.web.predictions import dump_json
from service.web.problems import shortened
from service.web.schemas import (
    FoldDetail,
    FoldSummary,
    ModelDetail,
    Models,
    ModelSummary,
    Problem,
)

if TYPE_CHECKING:
    from service.engine.card import ModelCard


def refuse_unknown_parameters(request: Request) -> None:
    """Raise `InvalidQuery` for a query parameter that is not read, or given more than once."""
    known = {"version"} if "model" in request.path_params else set()
    if "layer" in request.path_params:
        known.add("channel")
    refuse_parameters_but(request, known)


def refuse_parameters_but(request: Request, known: set[str]) -> None:
    """The same where these are read."""
    names = [name for name, _ in request.query_params.multi_items()]
    unknown = sorted(set(names) - known)
    if unknown:
        raise InvalidQuery(f"unknown parameter {shortened(unknown[0])!r}")
    if len(names) > len(set(names)):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidQuery(f"parameter given more than once: {repeated}")


router = APIRouter(
    prefix="/v1/models",
    tags=["models"],
    dependencies=[Depends(refuse_unknown_parameters)],
    responses={status: {"model": Problem} for status in (400, 404, 503)},
)

Version = Annotated[
    int | None, Query(gt=0, lt=10**18, description="The highest that is served, where none is given.")
]


@router.get("", response_model=Models)
async def list_models(context: Context) -> Models:
    """Everything that is served."""
    client = context.client
    return Models(
        state=client.state, models=[_summary(card, client.state) for card in client.editions.cards()]
    )


@router.get("/{model}", response_model=ModelDetail)
async def show_model(context: Context, model: str, version: Version = None) -> ModelDetail:
    """One version: manifest, effective settings, fold summary."""
    client, settings = context.client, context.settings
    card = client.editions.card(model, version)
    facts = card.facts
    return ModelDetail(
        **_summary(card, client.state).model_dump(),
        versions=[other.facts.version for other in client.editions.cards() if other.facts.model == model],
        labels=facts.labels,
        manifest=facts.manifest.model_dump(exclude_none=True),
        batching={
            "max_batch": facts.max_batch,
            "max_delay_ms": settings.max_delay_ms,
            "max_waiting_rows": settings.max_waiting_rows,
            "max_request_rows": settings.max_request_rows,
        },
        reference=facts.reference,
        memory=facts.memory,
        torch=facts.torch_version,
        seconds=facts.seconds,
    )


@router.get("/{model}/fold", response_model=FoldDetail)
async def show_fold(context: Context, model: str, version: Version = None) -> Response:
    """What became of every norm, and how exact the folded network is."""
    facts = context.client.editions.card(model, version).facts
    content = {"model": facts.model, "version": facts.version, **facts.fold}
    return Response(dump_json(content), media_type="application/json")


def _summary(card: ModelCard, state: str) -> ModelSummary:
    facts, fold = card.facts, card.facts.fold
    parity = fold["parity"]
    return ModelSummary(
        model=facts.model,
        version=facts.version,
        state=state,
        architecture=facts.manifest.architecture,
        input_shape=facts.manifest.input.shape,
        output_shape=facts.output_shape,
        device=facts.device,
        precision=facts.precision,
        max_batch=facts.max_batch,
        threads=facts.threads,
        tuned=facts.tuned,
        preprocessing=facts.preprocessing,
        fold=FoldSummary(
            **{name: fold[name] for name in ("norms", "folded", "kept")},
            **{
                name: parity[name]
                for name in ("max_relative_error", "unfolded_relative_error", "top1_agreement")
            },
        ),
    )
