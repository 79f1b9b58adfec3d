"""The Open Inference Protocol v2 of what is served: health, metadata, configuration, statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path

from service import __version__
from service.web.context import Context
from service.web.inference import parsed_version
from service.web.routes_health import refuse_unready
from service.web.schemas_v2 import (
    AllStatistics,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ProtocolError,
    Ready,
    ServerMetadata,
)
from service.web.served_model import config, metadata, statistics

if TYPE_CHECKING:
    from service.engine.card import ModelCard
    from service.web.context import Parts

EXTENSIONS = [
    *("binary_tensor_data", "classification", "statistics"),
    *("model_configuration", "model_repository", "logging"),
]
_ERROR: dict[str, Any] = {"model": ProtocolError}

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

Version = Annotated[str, Path(description="A positive integer.")]


@router.get("/", include_in_schema=False)
@router.get("", response_model=ServerMetadata)
async def show_server() -> ServerMetadata:
    """The server and the extensions of the protocol that work."""
    return ServerMetadata(name="foldserve", version=__version__, extensions=EXTENSIONS)


@router.get("/health/live", response_model=Live)
async def show_live() -> Live:
    """200 as long as the process can answer at all."""
    return Live(live=True)


@router.get("/health/ready", response_model=Ready, responses={503: _ERROR})
async def show_ready(context: Context) -> Ready:
    """200 when every model is folded, proven and warm; else 503."""
    refuse_unready(context.client)
    return Ready(ready=True)


_OF_MODEL: dict[int | str, dict[str, Any]] = {404: _ERROR, 503: _ERROR}


# Before the routes of a model, which would take it for one of that name.
@router.get("/models/stats", response_model=AllStatistics)
async def list_statistics(context: Context) -> AllStatistics:
    """The statistics of every version."""
    return statistics(context.client.editions.cards(), context.telemetry)


@router.get("/models/{model}", response_model=ModelMetadata, responses=_OF_MODEL)
async def show_model(context: Context, model: str) -> ModelMetadata:
    """The metadata of the highest version that is served."""
    return metadata(_card(context, model), context.client)


@router.get("/models/{model}/versions/{version}", response_model=ModelMetadata, responses=_OF_MODEL)
async def show_version(context: Context, model: str, version: Version) -> ModelMetadata:
    """The metadata of one version."""
    return metadata(_card(context, model, version), context.client)


@router.get("/models/{model}/ready", response_model=ModelReady, responses=_OF_MODEL)
async def show_model_ready(context: Context, model: str) -> ModelReady:
    """200 when the highest version answers requests to infer."""
    return _ready(context, _card(context, model))


@router.get("/models/{model}/versions/{version}/ready", response_model=ModelReady, responses=_OF_MODEL)
async def show_version_ready(context: Context, model: str, version: Version) -> ModelReady:
    """200 when a version answers requests to infer."""
    return _ready(context, _card(context, model, version))


@router.get("/models/{model}/config", response_model=ModelConfig, responses=_OF_MODEL)
async def show_config(context: Context, model: str) -> ModelConfig:
    """The configuration of the highest version."""
    return config(_card(context, model), context.settings)


@router.get("/models/{model}/versions/{version}/config", response_model=ModelConfig, responses=_OF_MODEL)
async def show_version_config(context: Context, model: str, version: Version) -> ModelConfig:
    """The configuration of one version."""
    return config(_card(context, model, version), context.settings)


@router.get("/models/{model}/stats", response_model=AllStatistics, responses=_OF_MODEL)
async def show_statistics(context: Context, model: str) -> AllStatistics:
    """The statistics of the versions of one model."""
    chosen = _card(context, model).facts.model
    cards = [card for card in context.client.editions.cards() if card.facts.model == chosen]
    return statistics(cards, context.telemetry)


@router.get("/models/{model}/versions/{version}/stats", response_model=AllStatistics, responses=_OF_MODEL)
async def show_version_statistics(context: Context, model: str, version: Version) -> AllStatistics:
    """The statistics of one version."""
    return statistics([_card(context, model, version)], context.telemetry)


def _card(parts: Parts, model: str, version: str | None = None) -> ModelCard:
    return parts.client.editions.card(model, parsed_version(version))


def _ready(parts: Parts, card: ModelCard) -> ModelReady:
    refuse_unready(parts.client)
    return ModelReady(name=card.facts.model, ready=True)
