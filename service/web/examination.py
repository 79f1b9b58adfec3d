"""Examinations: rows that somebody asks about, and the moments that the watched norms see of each.

They go the way of rows to predict, and are counted apart from those.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.errors import NotWatched
from service.web import bodies
from service.web.inference import parsed_version
from service.web.interest import Interest
from service.web.outcome import outcome_told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import numpy as np
    from starlette.requests import Request
    from starlette.responses import Response

    from service.engine.card import ModelCard
    from service.inputs.rows import Rows
    from service.web.context import Parts
    from service.web.schemas import RowsQuery


async def examined(
    parts: Parts,
    model: str,
    version: str | None,
    answered: Callable[[ModelCard, float], Awaitable[Response]],
) -> Response:
    """The answer of one version, counted by outcome; raises whatever error is to be answered.

    `answered` is told when it began, in seconds of the monotonic clock.
    """
    named, started = "", time.monotonic()
    with (
        outcome_told(lambda outcome: parts.telemetry.examination(named, outcome)),
        parts.client.editions.using(model, parsed_version(version)) as card,
    ):
        named = model
        refuse_unwatched(parts, card)
        return await answered(card, started)


def refuse_unwatched(parts: Parts, card: ModelCard) -> None:
    """Raise `NotWatched`, and say why, where nothing looks at the rows of a version."""
    if parts.settings.drift == "off":
        raise NotWatched("drift is off; foldserve serve --drift all, or input, looks at rows")
    if card.facts.moments_shape is None:
        raise NotWatched(f"model {card.facts.model!r} has no norm whose input can be looked at")
    report = parts.notices.read(*card.key) if parts.notices else None
    if report and report.state == "failed":
        raise NotWatched("looking at rows failed; the log of the service says why")


def deadline_of(parts: Parts, query: RowsQuery, started: float) -> float:
    """Until when to answer a request that came then, in seconds of the monotonic clock."""
    most_ms = parts.settings.timeout_ms
    return started + min(query.timeout_ms or most_ms, most_ms) / 1000


async def moments(request: Request, parts: Parts, card: ModelCard, rows: Rows, deadline: float) -> np.ndarray:
    """What the watched norms see of each row by `deadline`: float32 `[N, 2, C]`, means and variances.

    Raises what the engine's client does, and `JobCancelled` for a client that went away.
    """
    interest = Interest(request, deadline)
    with (
        interest.awaited(),
        parts.client.reserve(card, rows.count, rows.dtype, deadline, "moments") as run,
    ):
        await bodies.fill(rows, run.inputs, parts.decoders, interest.check)
        answer = await parts.client.infer(card, run, deadline, wanted="moments")
        return answer.rows.copy()
