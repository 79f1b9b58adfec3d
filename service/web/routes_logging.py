"""Logging: the level of all processes, shown and changed while they run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from service.errors import InvalidInput
from service.telemetry import Level
from service.web.context import Context
from service.web.json_body import described, json_body
from service.web.schemas import LogLevel, Problem
from service.web.schemas_v2 import LogSettings, LogSettingsQuery, ProtocolError

if TYPE_CHECKING:
    from service.web.context import Parts

router = APIRouter()

log = logging.getLogger("foldserve")

_STATUSES = (400, 408, 413, 429)
_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in _STATUSES}
_ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": ProtocolError} for status in _STATUSES}


@router.get("/v1/log-level", response_model=LogLevel, tags=["logging"])
async def show_level(context: Context) -> LogLevel:
    """What is logged: this level and those above."""
    return LogLevel(level=context.client.log_level.level)


@router.put(
    "/v1/log-level",
    response_model=LogLevel,
    responses=_PROBLEMS,
    openapi_extra=described(LogLevel),
    tags=["logging"],
)
async def change_level(context: Context, request: Request) -> LogLevel:
    """Log this level and those above from now on, in all processes, until the service ends."""
    wanted = await json_body(request, LogLevel)
    await _change(context, wanted.level)
    return wanted


@router.get("/v2/logging", response_model=LogSettings, tags=["Open Inference Protocol v2"])
async def show_settings(context: Context) -> LogSettings:
    """The same in the words of the protocol's logging extension."""
    return LogSettings.of(context.client.log_level.level)


@router.post(
    "/v2/logging",
    response_model=LogSettings,
    responses=_ERRORS,
    openapi_extra=described(LogSettingsQuery),
    tags=["Open Inference Protocol v2"],
)
async def change_settings(context: Context, request: Request) -> LogSettings:
    """Change what is given; a level brings those above, errors are always logged, and never to a file."""
    query = await json_body(request, LogSettingsQuery)
    wanted = LogSettings.of(context.client.log_level.level).model_copy(
        update=query.model_dump(exclude_none=True)
    )
    if wanted != LogSettings.of(wanted.level):
        raise InvalidInput("a level is logged together with all levels above it, and errors always")
    await _change(context, wanted.level)
    return wanted


async def _change(parts: Parts, level: Level) -> None:
    log.warning("the log level is to be %s from now on", level)
    await parts.client.log_level.change(level)
