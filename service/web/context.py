"""What the routes work with: made once by the composition root, found in the application's state."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from service.engine.client import EngineClient
from service.inspection.notices import Notices
from service.settings import Settings
from service.telemetry import Telemetry


@dataclass(frozen=True)
class Parts:
    """The parts that routes may use."""

    client: EngineClient
    settings: Settings
    telemetry: Telemetry
    decoders: Executor
    """Threads that decode bodies. Images are decoded beside the event loop; JSON is parsed under the lock
    of the interpreter, for which the loop waits too."""
    notices: Notices | None = None
    """What the engine says of the drift of live rows."""
    doctor: Executor = field(default_factory=partial(ThreadPoolExecutor, 1, "doctor"))
    """A single thread, on which images are decoded in many ways: nobody else's wait for that."""


def parts_of(request: Request) -> Parts:
    """The parts of the application that the request came to."""
    parts = request.app.state.parts
    if not isinstance(parts, Parts):
        raise TypeError("the application was not composed")
    return parts


Context = Annotated[Parts, Depends(parts_of)]
