"""The model repository of the Open Inference Protocol v2: its index, and loading and unloading."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.engine.change import Change
from service.errors import Forbidden, InvalidInput, StoreError
from service.store.model_store import ModelStore
from service.web.context import Context
from service.web.json_body import described, json_body
from service.web.schemas_v2 import ChangeQuery, IndexEntry, IndexQuery, ProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from service.web.context import Parts

_ERROR: dict[str, Any] = {"model": ProtocolError}
_IGNORED = {"unload_dependents"}

router = APIRouter(prefix="/v2/repository", tags=["Open Inference Protocol v2"])


@router.post(
    "/index",
    response_model=list[IndexEntry],
    responses=dict.fromkeys((400, 408, 413), _ERROR),
    openapi_extra=described(IndexQuery),
)
async def list_repository(context: Context, request: Request) -> list[IndexEntry]:
    """The versions that are served and, where that may change, those of the store; the body may be empty."""
    query = await json_body(request, IndexQuery)
    state = context.client.state
    is_ready = state == "ready"
    served = [
        _entry(card.facts.model, card.facts.version, "" if is_ready else f"the service is {state}")
        for card in context.client.editions.cards()
    ]
    if query.ready:
        return served if is_ready else []
    return [*served, *await _not_served(context, {(entry.name, entry.version) for entry in served})]


_OF_CHANGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done: every worker serves accordingly."},
    **dict.fromkeys((400, 404, 408, 413, 429, 503), _ERROR),
}


@router.post(
    "/models/{model}/load",
    response_class=Response,
    responses=_OF_CHANGE,
    openapi_extra=described(ChangeQuery),
)
async def load_model(context: Context, request: Request, model: str) -> Response:
    """Load what the store has of a model now, beside what is served, then serve it in that one's place."""
    return await _changed(context, request, model, "load")


@router.post(
    "/models/{model}/unload",
    response_class=Response,
    responses=_OF_CHANGE,
    openapi_extra=described(ChangeQuery),
)
async def unload_model(context: Context, request: Request, model: str) -> Response:
    """Serve a model no more; what was accepted before is answered."""
    return await _changed(context, request, model, "unload")


async def _changed(parts: Parts, request: Request, model: str, action: Literal["load", "unload"]) -> Response:
    if parts.settings.model_control != "explicit":
        raise Forbidden(f"nothing is {action}ed on request: model_control is {parts.settings.model_control}")
    query = await json_body(request, ChangeQuery)
    unknown = sorted(set(query.parameters or {}) - _IGNORED)
    if unknown:
        raise InvalidInput(
            f"parameter {unknown[0][:64]!r} is not supported: a model is served as it is stored"
        )
    await parts.client.errands.do(Change(action=action, model=model[:256]))
    return Response()


async def _not_served(parts: Parts, served: set[tuple[str, str]]) -> list[IndexEntry]:
    """The versions that lie in the store besides, where they may yet be served."""
    if parts.settings.model_control == "none":
        return []
    loop, folder = asyncio.get_running_loop(), parts.settings.model_store
    stored = await loop.run_in_executor(parts.decoders, _stored, folder)
    refusals = parts.client.errands.refusals
    return [
        _entry(name, version, refusals.get(name) or "it is not loaded")
        for name, version in stored
        if (name, str(version)) not in served
    ]


def _stored(folder: Path) -> list[tuple[str, int]]:
    store = ModelStore(folder)
    try:
        return [(name, version) for name in store.names() for version in store.versions(name)]
    except StoreError:
        return []


def _entry(name: str, version: int, reason: str) -> IndexEntry:
    return IndexEntry(
        name=name, version=str(version), state="UNAVAILABLE" if reason else "READY", reason=reason
    )
