"""Inference: one request's rows computed and its answer written, counted by what became of it.

What is the same for the native routes and for the Open Inference Protocol.
"""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING

from service.engine.card import ModelCard
from service.errors import UnknownVersion
from service.store.names import is_version
from service.web import bodies
from service.web.interest import Interest
from service.web.outcome import outcome_told
from service.web.predictions import refuse_non_finite
from service.web.problems import shortened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from service.batching.job import Answer
    from service.inputs.rows import Rows
    from service.telemetry import Entry, Phase, Stage
    from service.web.context import Parts


class Times:
    """Where the time of one request went; all in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        # The mutable state: each is set once, when it is known.
        self.rows = 0
        self.decoded = 0.0
        self.queue_s = 0.0
        self.compute_s = 0.0
        self.answered = 0.0
        self.written = 0.0

    def milliseconds(self) -> dict[Stage, float]:
        """Of each stage up to the answer, as clients see them."""
        seconds: dict[Stage, float] = {
            "decode": self.decoded - self.started,
            "queue": self.queue_s,
            "compute": self.compute_s,
            "total": self.answered - self.started,
        }
        return {stage: round(value * 1000, 3) for stage, value in seconds.items()}

    def known(self) -> dict[str, float]:
        """Milliseconds of each stage that the request came to the end of, as the log has them."""
        found = {}
        if self.decoded:
            found["decode_ms"] = round((self.decoded - self.started) * 1000, 3)
        if self.answered:
            found["queue_ms"] = round(self.queue_s * 1000, 3)
            found["compute_ms"] = round(self.compute_s * 1000, 3)
        if self.written:
            found["write_ms"] = round((self.written - self.answered) * 1000, 3)
        return found


def parsed_version(version: str | None) -> int | None:
    """A version as an address names it, None where it names none; raises `UnknownVersion`."""
    if version is None:
        return None
    if not is_version(version):
        raise UnknownVersion(f"{shortened(version)!r} is no version; versions are positive integers")
    return int(version)


async def counted(
    parts: Parts,
    model: str,
    version: str | None,
    answered: Callable[[ModelCard, Times], Awaitable[Response]],
    entry: Entry | None = None,
) -> Response:
    """The answer of one version, counted by outcome and noted in `entry`; raises the error to be answered."""
    times, found = Times(), list[ModelCard]()

    def tell(outcome: str) -> None:
        parts.telemetry.request(model if found else "", outcome)
        for card in found:
            _count(parts, card, times, is_success=outcome == "ok")
            if entry:
                _note(entry, card, times, outcome)

    with (
        outcome_told(tell),
        parts.client.editions.using(model, parsed_version(version)) as card,
    ):
        found.append(card)
        return await answered(card, times)


async def infer(
    request: Request,
    parts: Parts,
    card: ModelCard,
    rows: Rows,
    deadline: float,
    times: Times,
    written: Callable[[Answer], Response],
) -> Response:
    """Have `rows` computed by `deadline`; `written` makes the answer while the rows' memory is held.

    Raises what the engine's client does, and `JobCancelled` for a client that went away.
    """
    interest = Interest(request, deadline)
    with interest.awaited(), parts.client.reserve(card, rows.count, rows.dtype, deadline) as run:
        await bodies.fill(rows, run.inputs, parts.decoders, interest.check)
        times.rows, times.decoded = rows.count, time.monotonic()
        answer = await parts.client.infer(card, run, deadline, _client_number(request))
        refuse_non_finite(answer.rows)
        times.queue_s, times.compute_s, times.answered = answer.queue_s, answer.compute_s, time.monotonic()
        for stage, milliseconds in times.milliseconds().items():
            parts.telemetry.stage(card.facts.model, stage, milliseconds / 1000)
        response = written(answer)
        times.written = time.monotonic()
        return response


def _client_number(request: Request) -> int:
    """One number for each address that requests come from, in every process; 0 where none is known."""
    return zlib.crc32(request.client.host.encode()) if request.client else 0


def _note(entry: Entry, card: ModelCard, times: Times, outcome: str) -> None:
    entry.model, entry.version = card.key
    entry.outcome, entry.rows, entry.stages = outcome, times.rows, times.known


def _count(parts: Parts, card: ModelCard, times: Times, *, is_success: bool) -> None:
    model, version = card.key
    whole_s = time.monotonic() - times.started
    if not is_success:
        parts.telemetry.failed(model, version, whole_s)
        return
    seconds: dict[Phase, float] = {
        "success": whole_s,
        "queue": times.queue_s,
        "compute_input": times.decoded - times.started,
        "compute_infer": times.compute_s,
        "compute_output": times.written - times.answered,
    }
    parts.telemetry.succeeded(model, version, times.rows, seconds)
